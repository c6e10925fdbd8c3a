{{/* The node's settings, and what is computed from values for them. */}}

{{/* A memory quantity of Kubernetes ("768Mi") or a size of the node ("512MiB"), as bytes. */}}
{{- define "gaocache.bytes" -}}
{{- $text := toString . | replace " " "" }}
{{- $units := dict "" 1 "k" 1000 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "ki" 1024 }}
{{- $unit := regexFind "[kKMGT]i?" $text }}
{{- /* A large number in a file of values is a float, such as 1.048576e+08. */}}
{{- mulf (regexFind "^[0-9.]+(e[+]?[0-9]+)?" $text | float64) (get $units $unit) | int64 }}
{{- end }}

{{/* An amount of CPU ("2", "500m"), as thousandths of a core. */}}
{{- define "gaocache.millicores" -}}
{{- $text := toString . }}
{{- if hasSuffix "m" $text }}{{ trimSuffix "m" $text | float64 | int64 }}{{ else }}{{ mulf (float64 $text) 1000 | int64 }}{{ end }}
{{- end }}

{{/* The resources of a node. The request for memory is the limit, unless another one is set. */}}
{{- define "gaocache.resources" -}}
{{- $resources := deepCopy (.Values.resources | default dict) }}
{{- $limit := ($resources.limits).memory }}
{{- if and $limit (not ($resources.requests).memory) }}
{{- $_ := set $resources "requests" (merge (dict "memory" $limit) ($resources.requests | default dict)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- define "gaocache.memoryLimit" -}}
{{- with ((.Values.resources).limits).memory }}{{ include "gaocache.bytes" . }}{{ end }}
{{- end }}

{{/* A percentage becomes bytes, so that the node needs to know nothing about limits. */}}
{{- define "gaocache.capacity" -}}
{{- if hasSuffix "%" .Values.cache.capacity }}
{{- $limit := include "gaocache.memoryLimit" . }}
{{- if not $limit }}
{{- fail (printf "cache.capacity is %s of resources.limits.memory, which is not set; set the limit, or a size such as cache.capacity=512MiB" .Values.cache.capacity) }}
{{- end }}
{{- printf "%dB" (divf (mulf (trimSuffix "%" .Values.cache.capacity | float64) (float64 $limit)) 100 | int64) }}
{{- else }}
{{- .Values.cache.capacity }}
{{- end }}
{{- end }}

{{- define "gaocache.workerThreads" -}}
{{- if .Values.workerThreads }}
{{- .Values.workerThreads }}
{{- else }}
{{- $cpu := ((.Values.resources).limits).cpu | toString }}
{{- if or (eq $cpu "<nil>") (eq $cpu "") }}4
{{- else }}{{ divf (include "gaocache.millicores" $cpu | float64) 1000 | ceil | int | max 1 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Names without a namespace: they are valid in any, also after kustomize has moved the objects. */}}
{{- define "gaocache.etcdEndpoints" -}}
{{- $name := include "gaocache.etcdName" . }}
{{- if .Values.etcd.enabled }}
{{- $urls := list }}
{{- range $member := until (int .Values.etcd.replicas) }}
{{- $urls = append $urls (printf "%s://%s-%d.%s-headless:2379" (ternary "https" "http" $.Values.etcd.tls.enabled) $name $member $name) }}
{{- end }}
{{- toJson $urls }}
{{- else }}
{{- $urls := list }}
{{- range .Values.externalEtcd.endpoints }}
{{- $urls = append $urls (trimSuffix "/" .) }}
{{- end }}
{{- toJson $urls }}
{{- end }}
{{- end }}

{{- define "gaocache.etcdSettings" -}}
{{- $etcd := dict "endpoints" (include "gaocache.etcdEndpoints" . | fromJsonArray) }}
{{- if and (not .Values.etcd.enabled) .Values.externalEtcd.credentialsSecret }}
{{- $_ := set $etcd "password_file" "/etc/gaocache/etcd-credentials/password" }}
{{- end }}
{{- if include "gaocache.etcdTlsSecret" . }}
{{- $tls := dict "ca" "/etc/gaocache/etcd-tls/ca.crt" }}
{{- if or .Values.etcd.enabled .Values.externalEtcd.clientCertificate }}
{{- $_ := set $tls "cert" "/etc/gaocache/etcd-tls/tls.crt" }}
{{- $_ := set $tls "key" "/etc/gaocache/etcd-tls/tls.key" }}
{{- end }}
{{- $_ := set $etcd "tls" $tls }}
{{- end }}
{{- toJson $etcd }}
{{- end }}

{{/* The Secret with what nodes need for TLS with etcd; empty if etcd speaks none. */}}
{{- define "gaocache.etcdTlsSecret" -}}
{{- if not .Values.etcd.enabled }}{{ .Values.externalEtcd.tlsSecret }}
{{- else if not .Values.etcd.tls.enabled }}
{{- else if .Values.etcd.tls.certManager.enabled }}{{ include "gaocache.etcdName" . }}-client-tls
{{- else }}{{ .Values.etcd.tls.clientSecret | default .Values.etcd.tls.secret }}
{{- end }}
{{- end }}

{{/* The Secret with the certificate of etcd's members. */}}
{{- define "gaocache.etcdMemberTlsSecret" -}}
{{- if .Values.etcd.tls.certManager.enabled }}{{ include "gaocache.etcdName" . }}-tls{{ else }}{{ .Values.etcd.tls.secret }}{{ end }}
{{- end }}

{{/* The Secret with the certificate of the listeners; empty if none speaks TLS. */}}
{{- define "gaocache.tlsSecret" -}}
{{- if or .Values.tls.grpc.enabled .Values.tls.http.enabled .Values.tls.redis.enabled .Values.tls.admin.enabled }}
{{- if .Values.tls.certManager.enabled }}{{ include "gaocache.fullname" . }}-tls{{ else }}{{ .Values.tls.secret }}{{ end }}
{{- end }}
{{- end }}

{{/* The name by which everybody in the cluster reaches the nodes: pods' addresses are in no certificate. */}}
{{- define "gaocache.serverName" -}}
{{ include "gaocache.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* How the commands in a pod reach its own listeners, and those of the others. */}}
{{- define "gaocache.tlsEnv" -}}
{{- if include "gaocache.tlsSecret" . }}
- {name: GAOCACHE_CA, value: /etc/gaocache/tls/ca.crt}
- {name: GAOCACHE_CERT, value: /etc/gaocache/tls/tls.crt}
- {name: GAOCACHE_CERT_KEY, value: /etc/gaocache/tls/tls.key}
- {name: GAOCACHE_SERVER_NAME, value: {{ include "gaocache.serverName" . }}}
- {name: GAOCACHE_TARGET, value: "{{ ternary "https" "http" .Values.tls.grpc.enabled }}://127.0.0.1:7070"}
- {name: GAOCACHE_ADMIN, value: "{{ ternary "https" "http" .Values.tls.admin.enabled }}://127.0.0.1:9090"}
{{- end }}
{{- end }}

{{/* The settings as TOML. `settings` overrides all others. JSON would turn whole numbers into floats. */}}
{{- define "gaocache.config" -}}
{{- $etcd := include "gaocache.etcdSettings" . | fromJson }}
{{- $_ := set $etcd "lease_ttl_seconds" (int .Values.registry.leaseTtlSeconds) }}
{{- $config := dict
  "node" (dict "drain_timeout_seconds" .Values.drain.timeoutSeconds "shutdown_timeout_seconds" .Values.drain.shutdownSeconds
    "worker_threads" (include "gaocache.workerThreads" . | int))
  "registry" (dict "kind" "etcd" "service" (include "gaocache.service" .) "etcd" $etcd)
  "cache" (dict "capacity" (include "gaocache.capacity" .))
  "log" (dict "level" .Values.log.level "format" .Values.log.format) }}
{{- $_ := set $config "admin" (dict "socket" "/run/gaocache/admin.sock") }}
{{- $auth := dict "anonymous" .Values.auth.anonymous }}
{{- with .Values.auth.grants }}
{{- $_ := set $auth "grants" . }}
{{- end }}
{{- if .Values.auth.tokensSecret }}
{{- $_ := set $auth "token_file" "/etc/gaocache/tokens/tokens" }}
{{- end }}
{{- $_ := set $config "auth" $auth }}
{{- /* The names that routes and the service lead here by; names of services end with .svc otherwise. */}}
{{- $hosts := list (printf "%s.%s" (include "gaocache.fullname" .) .Release.Namespace) }}
{{- if .Values.ingress.enabled }}
{{- $hosts = concat $hosts .Values.ingress.hosts }}
{{- end }}
{{- if .Values.httpRoute.enabled }}
{{- $hosts = concat $hosts .Values.httpRoute.hostnames }}
{{- end }}
{{- $_ := set $config "http" (dict "allowed_hosts" (uniq $hosts)) }}
{{- $groups := list }}
{{- range deepCopy (.Values.groups | default list) }}
{{- $files := dict }}
{{- $headers := .origin.headers | default dict }}
{{- range $header, $from := get ($.Values.headersFromSecrets | default dict) .name | default dict }}
{{- $_ := set $files $header (printf "/etc/gaocache/headers/%s/%s" $from.secretName $from.key) }}
{{- with $from.prefix }}
{{- $_ := set $headers $header . }}
{{- end }}
{{- end }}
{{- if $files }}
{{- $_ := set .origin "headers" $headers }}
{{- $_ := set .origin "header_files" $files }}
{{- end }}
{{- $groups = append $groups . }}
{{- end }}
{{- with $groups }}
{{- $_ := set $config "groups" . }}
{{- end }}
{{- if .Values.peer.tlsSecret }}
{{- $_ := set $config "peer" (dict "allowed_peers" .Values.peer.allowedPeers
    "tls" (dict "ca" "/etc/gaocache/peer-tls/ca.crt" "cert" "/etc/gaocache/peer-tls/tls.crt" "key" "/etc/gaocache/peer-tls/tls.key")) }}
{{- end }}
{{- range $listener := list "grpc" "http" "redis" "admin" }}
{{- with get $.Values.tls $listener }}
{{- if .enabled }}
{{- $tls := dict "cert" "/etc/gaocache/tls/tls.crt" "key" "/etc/gaocache/tls/tls.key" }}
{{- if ne .clientAuth "none" }}
{{- $_ := set $tls "client_ca" "/etc/gaocache/tls/ca.crt" }}
{{- $_ := set $tls "client_auth" .clientAuth }}
{{- end }}
{{- $_ := set $config $listener (dict "tls" $tls) }}
{{- end }}
{{- end }}
{{- end }}
{{- $host := ternary (printf "[%s]" .Values.listenAddress) .Values.listenAddress (contains ":" .Values.listenAddress) }}
{{- if .Values.redis.enabled }}
{{- $_ := set $config "redis" (merge (dict "listen" (printf "%s:6379" $host)) ($config.redis | default dict)) }}
{{- end }}
{{- if ne .Values.listenAddress "0.0.0.0" }}
{{- range $listener, $port := dict "grpc" 7070 "peer" 7071 "http" 8080 "admin" 9090 }}
{{- $_ := set $config $listener (merge (dict "listen" (printf "%s:%d" $host (int $port))) (get $config $listener | default dict)) }}
{{- end }}
{{- end }}
{{- /* Omitted if empty, so that the pod's OTEL_ variables take effect. */}}
{{- with .Values.trace }}
{{- if .endpoint }}
{{- $_ := set $config "trace" (dict "endpoint" .endpoint "sampler" .sampler "sample_ratio" .sampleRatio) }}
{{- end }}
{{- end }}
{{- mergeOverwrite $config (deepCopy (.Values.settings | default dict)) | toToml }}
{{- end }}

{{/* Not empty if everybody who reaches the ports may get values. */}}
{{- define "gaocache.anonymousReads" -}}
{{- $auth := (include "gaocache.config" . | fromToml).auth }}
{{- if or (not (hasKey $auth "anonymous")) (has "read" $auth.anonymous) }}true{{ end }}
{{- end }}

{{/* "Secret" if the settings may contain credentials, else "ConfigMap". */}}
{{- define "gaocache.configKind" -}}
{{- $secret := false }}
{{- range .Values.groups }}
{{- if or .origin.headers (contains "@" (.origin.url | default "")) }}{{ $secret = true }}{{ end }}
{{- end }}
{{- ternary "Secret" "ConfigMap" $secret }}
{{- end }}

{{/* The longest time that a pod may take to stop: the time limit of each step, deregistering (3 s), the last spans (3 s), and some slack. */}}
{{- define "gaocache.gracePeriod" -}}
{{- add (int .Values.drain.preStopSeconds) (ceil .Values.drain.timeoutSeconds | int) (ceil .Values.drain.shutdownSeconds | int) 11 }}
{{- end }}

{{/* The volumes of pods that read the node's settings. */}}
{{- define "gaocache.volumes" -}}
- name: config
  {{- if eq (include "gaocache.configKind" .) "Secret" }}
  secret: {secretName: {{ include "gaocache.fullname" . }}}
  {{- else }}
  configMap: {name: {{ include "gaocache.fullname" . }}}
  {{- end }}
{{- if not .Values.etcd.enabled }}
{{- with .Values.externalEtcd.credentialsSecret }}
- name: etcd-credentials
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}
{{- with include "gaocache.etcdTlsSecret" . }}
- name: etcd-tls
  secret: {secretName: {{ . }}}
{{- end }}
{{- with include "gaocache.headerSecrets" . }}
- name: headers
  projected:
    sources: {{- . | nindent 6 }}
{{- end }}
{{- with .Values.peer.tlsSecret }}
- name: peer-tls
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.auth.tokensSecret }}
- name: tokens
  secret: {secretName: {{ . }}}
{{- end }}
{{- with include "gaocache.tlsSecret" . }}
- name: tls
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gaocache.volumeMounts" -}}
- {name: config, mountPath: /etc/gaocache/config, readOnly: true}
{{- if not .Values.etcd.enabled }}
{{- if .Values.externalEtcd.credentialsSecret }}
- {name: etcd-credentials, mountPath: /etc/gaocache/etcd-credentials, readOnly: true}
{{- end }}
{{- end }}
{{- if include "gaocache.etcdTlsSecret" . }}
- {name: etcd-tls, mountPath: /etc/gaocache/etcd-tls, readOnly: true}
{{- end }}
{{- if include "gaocache.headerSecrets" . }}
- {name: headers, mountPath: /etc/gaocache/headers, readOnly: true}
{{- end }}
{{- if .Values.peer.tlsSecret }}
- {name: peer-tls, mountPath: /etc/gaocache/peer-tls, readOnly: true}
{{- end }}
{{- if .Values.auth.tokensSecret }}
- {name: tokens, mountPath: /etc/gaocache/tokens, readOnly: true}
{{- end }}
{{- if include "gaocache.tlsSecret" . }}
- {name: tls, mountPath: /etc/gaocache/tls, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The Secrets with headers, as sources of a projected volume, whose changes the kubelet follows.
Each value is at SECRET/KEY: headers of several groups may come from one. */}}
{{- define "gaocache.headerSecrets" -}}
{{- $keys := dict }}
{{- range $group, $headers := .Values.headersFromSecrets }}
{{- range $header, $from := $headers }}
{{- $_ := set $keys $from.secretName (append (get $keys $from.secretName | default list) $from.key | uniq | sortAlpha) }}
{{- end }}
{{- end }}
{{- range $secret, $names := $keys }}
- secret:
    name: {{ $secret }}
    items:
      {{- range $names }}
      - {key: {{ . }}, path: {{ $secret }}/{{ . }}}
      {{- end }}
{{- end }}
{{- end }}

{{/* What a changed value of restarts pods: all settings but those that nodes take up while they run,
which files/live-settings.txt lists. A value can't grow beyond the largest max_value at the start. */}}
{{- define "gaocache.checksum" -}}
{{- $config := include "gaocache.config" . | fromToml }}
{{- $largest := 0 }}
{{- range $config.groups }}
{{- $largest = max $largest (include "gaocache.bytes" (.max_value | default 0)) }}
{{- end }}
{{- $lines := include "gaocache.settingLines" (list "" $config (.Files.Lines "files/live-settings.txt")) }}
{{- printf "%d%s" $largest $lines | sha256sum }}
{{- end }}

{{- define "gaocache.settingLines" -}}
{{- $live := index . 2 }}
{{- range $name, $value := index . 1 }}
{{- $path := printf "%s%s" (index $ 0) $name }}
{{- if kindIs "map" $value }}
{{- include "gaocache.settingLines" (list (printf "%s." $path) $value $live) }}
{{- else if not (has $path $live) }}
{{ $path }}={{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* The variables that both the nodes and `helm test` need. */}}
{{- define "gaocache.credentialsEnv" -}}
{{- include "gaocache.tlsEnv" . }}
{{- if and (not .Values.etcd.enabled) .Values.externalEtcd.credentialsSecret }}
- name: GAOCACHE__REGISTRY__ETCD__USERNAME
  valueFrom: {secretKeyRef: {name: {{ .Values.externalEtcd.credentialsSecret }}, key: username}}
{{- end }}
{{- end }}
