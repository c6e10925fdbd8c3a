{{/* Names and labels. */}}

{{- define "gaocache.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 47 characters, because Kubernetes limits labels to 63: a pod of etcd has the label
"NAME-etcd-HASH" with a hash of ten characters, and its service is "NAME-etcd-headless". A name that
is cut gets a hash of the whole, so that two long names stay different. */}}
{{- define "gaocache.fullname" -}}
{{- $name := printf "%s-%s" .Release.Name (include "gaocache.name" .) }}
{{- if .Values.fullnameOverride }}
{{- $name = .Values.fullnameOverride }}
{{- else if contains (include "gaocache.name" .) .Release.Name }}
{{- $name = .Release.Name }}
{{- end }}
{{- if gt (len $name) 47 }}
{{- $name = printf "%s-%s" ($name | trunc 38 | trimSuffix "-") (sha256sum $name | trunc 8) }}
{{- end }}
{{- $name | trimSuffix "-" }}
{{- end }}

{{- define "gaocache.etcdName" -}}
{{ include "gaocache.fullname" . }}-etcd
{{- end }}

{{/* Under this name the nodes find each other, and their keys in etcd begin with it. Two releases may
share an etcd, so it carries the namespace. Neither part can contain a dot. */}}
{{- define "gaocache.service" -}}
{{ .Release.Namespace }}.{{ include "gaocache.fullname" . }}
{{- end }}

{{/* In quotes: a release may be called 1234 or off, which YAML takes for no text. */}}
{{- define "gaocache.selector" -}}
app.kubernetes.io/name: {{ include "gaocache.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* metadata: list $ "name" "component"; the component may be empty. The chart's own labels win over
commonLabels, because selectors depend on them. */}}
{{- define "gaocache.metadata" -}}
{{- $root := index . 0 }}
{{- $own := include "gaocache.selector" $root | fromYaml }}
{{- with index . 2 }}{{ $_ := set $own "app.kubernetes.io/component" . }}{{ end }}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $own "app.kubernetes.io/version" (include "gaocache.labelValue" $root.Chart.AppVersion) }}
{{- $_ := set $own "helm.sh/chart" (include "gaocache.labelValue" (printf "%s-%s" $root.Chart.Name $root.Chart.Version)) -}}
name: {{ index . 1 }}
labels: {{- merge $own (deepCopy ($root.Values.commonLabels | default dict)) (deepCopy (get (index . 3 | default dict) "labels" | default dict)) | toYaml | nindent 2 }}
{{- with merge (deepCopy (get (index . 3 | default dict) "annotations" | default dict)) (deepCopy ($root.Values.commonAnnotations | default dict)) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A version may contain "+" (Flux appends the digest of the chart to it), a label may not. */}}
{{- define "gaocache.labelValue" -}}
{{- . | replace "+" "_" | trunc 63 | trimAll "-_." }}
{{- end }}

{{/* Labels of pods: list $ "component" extra. No version among them: a new chart version alone must
not restart anything, least of all cache and etcd at the same time. */}}
{{- define "gaocache.podLabels" -}}
{{- $own := include "gaocache.selector" (index . 0) | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/component" (index . 1) }}
{{- merge $own (deepCopy (index . 2 | default dict)) (deepCopy ((index . 0).Values.commonLabels | default dict)) | toYaml }}
{{- end }}

{{- define "gaocache.serviceAccountName" -}}
{{- default (ternary (include "gaocache.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* image: dict "root" $ "image" .Values.image "tag" "default tag" */}}
{{- define "gaocache.image" -}}
{{- $registry := default .image.registry (.root.Values.global).imageRegistry }}
{{- $name := ternary .image.repository (printf "%s/%s" $registry .image.repository) (empty $registry) }}
{{- if .image.digest }}{{ $name }}@{{ .image.digest }}{{ else }}{{ $name }}:{{ default .tag .image.tag | replace "+" "_" }}{{ end }}
{{- end }}

{{/* The IP families of a service. */}}
{{- define "gaocache.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy -}}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies: {{ toJson . }}
{{- end }}
{{- end }}
