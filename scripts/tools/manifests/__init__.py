"""What is shipped in manifests/: reading it, rendering it with kustomize and Helm, and comparing. Asserts nothing."""
