{{- define "gaocache.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "gaocache.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "gaocache.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "gaocache.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gaocache.etcdName" -}}
{{ include "gaocache.fullname" . }}-etcd
{{- end }}

{{- define "gaocache.selector" -}}
app.kubernetes.io/name: {{ include "gaocache.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The selector labels, and labels that may change over time. */}}
{{- define "gaocache.labels" -}}
{{ include "gaocache.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gaocache.serviceAccountName" -}}
{{- default (ternary (include "gaocache.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* image: dict "root" $ "image" .Values.image "tag" "default tag" */}}
{{- define "gaocache.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry }}
{{- $name := ternary .image.repository (printf "%s/%s" $registry .image.repository) (empty $registry) }}
{{- if .image.digest }}{{ $name }}@{{ .image.digest }}{{ else }}{{ $name }}:{{ default .tag .image.tag }}{{ end }}
{{- end }}

{{- define "gaocache.etcdEndpoints" -}}
{{- $name := include "gaocache.etcdName" . }}
{{- if .Values.etcd.enabled }}
{{- $urls := list }}
{{- range $member := until (int .Values.etcd.replicas) }}
{{- $urls = append $urls (printf "http://%s-%d.%s-headless.%s.svc:2379" $name $member $name $.Release.Namespace) }}
{{- end }}
{{- toJson $urls }}
{{- else }}
{{- toJson .Values.externalEtcd.endpoints }}
{{- end }}
{{- end }}

{{/* The node's settings. `settings` overrides all others. */}}
{{- define "gaocache.config" -}}
{{- $etcd := dict "endpoints" (include "gaocache.etcdEndpoints" . | fromJsonArray) "lease_ttl_seconds" .Values.registry.leaseTtlSeconds }}
{{- if not .Values.etcd.enabled }}
{{- if .Values.externalEtcd.credentialsSecret }}
{{- $_ := set $etcd "password_file" "/etc/gaocache/etcd-credentials/password" }}
{{- end }}
{{- if .Values.externalEtcd.tlsSecret }}
{{- $tls := dict "ca" "/etc/gaocache/etcd-tls/ca.crt" }}
{{- if .Values.externalEtcd.clientCertificate }}
{{- $_ := set $tls "cert" "/etc/gaocache/etcd-tls/tls.crt" }}
{{- $_ := set $tls "key" "/etc/gaocache/etcd-tls/tls.key" }}
{{- end }}
{{- $_ := set $etcd "tls" $tls }}
{{- end }}
{{- end }}
{{- $config := dict
  "node" (dict "drain_timeout_seconds" .Values.drain.timeoutSeconds "shutdown_timeout_seconds" .Values.drain.shutdownSeconds)
  "registry" (dict "kind" "etcd" "service" (include "gaocache.fullname" .) "etcd" $etcd)
  "cache" (dict "capacity" .Values.cache.capacity)
  "log" (dict "level" .Values.log.level "format" .Values.log.format)
  "groups" .Values.groups }}
{{- /* Omitted if empty, so that the pod's OTEL_ variables take effect. */}}
{{- with .Values.trace }}
{{- if .endpoint }}
{{- $_ := set $config "trace" (dict "endpoint" .endpoint "sampler" .sampler "sample_ratio" .sampleRatio) }}
{{- end }}
{{- end }}
{{- mergeOverwrite $config (deepCopy .Values.settings) | toToml }}
{{- end }}

{{/* The longest time that a pod may take to stop: the time limit of each step, deregistering (3 s), the last spans (3 s), and some slack. */}}
{{- define "gaocache.gracePeriod" -}}
{{- add (int .Values.drain.preStopSeconds) (int .Values.drain.timeoutSeconds) (int .Values.drain.shutdownSeconds) 11 }}
{{- end }}

{{/* The restricted Pod Security Standard. */}}
{{- define "gaocache.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "gaocache.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Checks that the schema can't express. */}}
{{- define "gaocache.check" -}}
{{- if .Values.etcd.enabled }}
{{- $replicas := int .Values.etcd.replicas }}
{{- if not (has $replicas (list 1 3)) }}
{{- fail (printf "etcd.replicas is %d, but must be 1 or 3: an even-sized etcd tolerates no more failures than one with a member less. For other sizes, use externalEtcd" $replicas) }}
{{- end }}
{{- if and (gt $replicas 1) (not .Values.etcd.persistence.enabled) }}
{{- fail "etcd.persistence.enabled=false requires etcd.replicas=1: of three members, one that comes back without its data breaks the cluster" }}
{{- end }}
{{- $standing := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "gaocache.etcdName" .) }}
{{- if $standing }}
{{- if ne (int $standing.spec.replicas) $replicas }}
{{- fail (printf "etcd.replicas can't be changed from %d to %d: the members were bootstrapped as a cluster of that size; keep the size, or reinstall" (int $standing.spec.replicas) $replicas) }}
{{- end }}
{{- end }}
{{- else if not .Values.externalEtcd.endpoints }}
{{- fail "etcd.enabled=false requires externalEtcd.endpoints" }}
{{- end }}
{{- if not .Values.groups }}
{{- fail "groups is empty; at least one group is required, such as --set 'groups[0].name=users,groups[0].origin.kind=http,groups[0].origin.url=http://origin:8000/users/{key}' (or a values file)" }}
{{- end }}
{{- end }}

{{/* The volumes of pods that read the node's settings. */}}
{{- define "gaocache.volumes" -}}
- name: config
  configMap: {name: {{ include "gaocache.fullname" . }}}
{{- if not .Values.etcd.enabled }}
{{- with .Values.externalEtcd.credentialsSecret }}
- name: etcd-credentials
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.externalEtcd.tlsSecret }}
- name: etcd-tls
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
