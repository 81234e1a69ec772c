{{- define "warmnode.labels" -}}
app.kubernetes.io/name: warmnode
app.kubernetes.io/part-of: warmnode
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "warmnode.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The version of the cluster, without what a provider appends (v1.37.2-eks-1a2b3c4, v1.36.3+k3s1). */ -}}
{{- define "warmnode.kubeSchedulerImage" -}}
{{ .Values.kubeScheduler.image.repository }}:{{ .Values.kubeScheduler.image.tag | default (regexFind "v[0-9]+\\.[0-9]+\\.[0-9]+" .Capabilities.KubeVersion.Version) }}
{{- end }}

{{- /* One file for both ways of installing. Comments stay. */ -}}
{{- define "warmnode.kubeSchedulerConfig" -}}
{{- $file := ternary "files/kube-scheduler-config-tls.yaml" "files/kube-scheduler-config.yaml" .Values.tls.enabled -}}
{{- .Files.Get $file
  | replace "resourceNamespace: warmnode" (printf "resourceNamespace: %s" .Release.Namespace)
  | replace "schedulerName: warmnode" (printf "schedulerName: %s" .Values.kubeScheduler.schedulerName)
  | replace "serverName: warmnode.warmnode.svc" (printf "serverName: warmnode.%s.svc" .Release.Namespace)
  | replace "weight: 200" (printf "weight: %d" (int .Values.kubeScheduler.weight))
  | trim -}}
{{- end }}
