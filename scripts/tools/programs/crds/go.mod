// Nothing is built here: the tests read the custom resource definitions that these modules carry.
module warmnode.dev/tools/crds

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
