{{/* Checks that the schema can't express. */}}
{{- define "gaocache.check" -}}
{{- include "gaocache.checkEtcd" . }}
{{- include "gaocache.checkScaling" . }}
{{- include "gaocache.checkPorts" . }}
{{- include "gaocache.checkResources" (list "resources" .Values.resources) }}
{{- include "gaocache.checkResources" (list "etcd.resources" .Values.etcd.resources) }}
{{- $settings := include "gaocache.config" . | fromToml }}
{{- $limit := include "gaocache.memoryLimit" . }}
{{- if $limit }}
{{- $capacity := include "gaocache.bytes" $settings.cache.capacity | float64 }}
{{- if gt $capacity (mulf (float64 $limit) 0.8) }}
{{- $said := ((.Values.settings).cache).capacity }}
{{- $name := ternary "settings.cache.capacity" "cache.capacity" (not (empty $said)) }}
{{- fail (printf "%s (%v) is more than 80 %% of resources.limits.memory (%v): the node would be killed once the cache is full. Lower the capacity, or raise the limit" $name ($said | default .Values.cache.capacity) .Values.resources.limits.memory) }}
{{- end }}
{{- end }}
{{- if and ((.Values.settings).node).zone .Values.zone.fromMachine }}
{{- fail "settings.node.zone contradicts zone.fromMachine" }}
{{- end }}
{{- if and ((.Values.settings).node).zone_file (or .Values.zone.fromMachine .Values.zone.podLabel) }}
{{- fail "settings.node.zone_file contradicts zone.podLabel and zone.fromMachine, which tell the zone too; set zone.podLabel to an empty string" }}
{{- end }}
{{- if and ((.Values.settings).node).zone .Values.zone.podLabel }}
{{- fail "settings.node.zone would be the same zone for all nodes, and zone.podLabel overrides it; set zone.podLabel to an empty string if all nodes do run in one zone" }}
{{- end }}
{{- if and .Values.prometheusRule.enabled (not .Values.serviceMonitor.enabled) (not .Values.prometheusRule.selector) }}
{{- fail "prometheusRule.enabled requires serviceMonitor.enabled, which gives the series the label that the alerts select by, or else prometheusRule.selector: without series, GaocacheOutage would fire" }}
{{- end }}
{{- if and .Values.peer.tlsSecret (not .Values.peer.allowedPeers) }}
{{- fail "peer.tlsSecret requires peer.allowedPeers: a certificate from the CA alone does not make its holder a node" }}
{{- end }}
{{- if and .Values.peer.allowedPeers (not .Values.peer.tlsSecret) }}
{{- fail "peer.allowedPeers has no effect without peer.tlsSecret: nodes then know each other by registered keys" }}
{{- end }}
{{- if and .Values.peer.tlsSecret ((.Values.settings).peer).insecure }}
{{- fail "settings.peer.insecure=true contradicts peer.tlsSecret" }}
{{- end }}
{{- $speak := or .Values.tls.grpc.enabled .Values.tls.http.enabled .Values.tls.redis.enabled .Values.tls.admin.enabled }}
{{- if and $speak (not .Values.tls.secret) (not .Values.tls.certManager.enabled) }}
{{- fail "TLS of a listener requires a certificate: set tls.secret or tls.certManager.enabled" }}
{{- end }}
{{- if and .Values.tls.secret .Values.tls.certManager.enabled }}
{{- fail "tls.secret contradicts tls.certManager.enabled, which makes a Secret of its own" }}
{{- end }}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) }}
{{- fail "tls.certManager.enabled requires tls.certManager.issuerRef.name" }}
{{- end }}
{{- if and (or .Values.tls.secret .Values.tls.certManager.enabled) (not $speak) }}
{{- fail "there is a certificate, but no listener speaks TLS: set tls.grpc.enabled, tls.http.enabled, tls.redis.enabled or tls.admin.enabled" }}
{{- end }}
{{- range $listener := list "grpc" "http" "redis" "admin" }}
{{- with get $.Values.tls $listener }}
{{- if and (ne .clientAuth "none") (not .enabled) }}
{{- fail (printf "tls.%s.clientAuth=%s has no effect without tls.%s.enabled: a listener without TLS sees no certificates" $listener .clientAuth $listener) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.tls.redis.enabled (not .Values.redis.enabled) }}
{{- fail "tls.redis.enabled has no effect without redis.enabled: there is no listener for Redis clients" }}
{{- end }}
{{- $names := list }}
{{- range .Values.groups }}
{{- if has .name $names }}
{{- fail (printf "two groups have the name %s" .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- range $group, $_ := .Values.headersFromSecrets }}
{{- if not (has $group $names) }}
{{- fail (printf "headersFromSecrets names the group %s, which is not in groups" $group) }}
{{- end }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.enabled requires ingress.hosts" }}
{{- end }}
{{- range $route := list "httpRoute" "grpcRoute" }}
{{- with get $.Values $route }}
{{- if and .enabled (not .parentRefs) }}
{{- fail (printf "%s.enabled requires %s.parentRefs: a route without a gateway leads nowhere" $route $route) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.podDisruptionBudget }}
{{- if and .enabled (regexMatch "^0+%?$" (toString .maxUnavailable)) }}
{{- fail (printf "podDisruptionBudget.maxUnavailable (%v) would let no pod be evicted, so no machine could be drained; set at least 1" .maxUnavailable) }}
{{- end }}
{{- end }}
{{- $jwt := ($settings.auth).jwt | default dict }}
{{- if not (or $jwt.jwks_file $jwt.jwks_url) }}
{{- range ($settings.auth).grants }}
{{- if hasPrefix "jwt:" . }}
{{- fail (printf "auth.grants: nobody can have the grant of '%s': no JWT is accepted; set settings.auth.jwt" (splitList " " . | first)) }}
{{- end }}
{{- end }}
{{- end }}
{{- include "gaocache.checkNode" $settings }}
{{- include "gaocache.checkAudit" (list . $settings) }}
{{- end }}

{{/* What an earlier version of the chart did not have is missing after `helm upgrade --reuse-values`.
Helm renders the test first, since it is in a folder of its own, so that is where this is included. */}}
{{- define "gaocache.checkComplete" -}}
{{- range $name := .Files.Lines "files/required-values.txt" }}
{{- $place := $.Values }}
{{- $missing := false }}
{{- range $part := splitList "." $name | compact }}
{{- if not $missing }}
{{- $missing = not (hasKey $place $part) }}
{{- $place = get $place $part }}
{{- end }}
{{- end }}
{{- if $missing }}
{{- fail (printf "the values have no %s. `helm upgrade --reuse-values` keeps the defaults of the version that was installed, which lack it: use --reset-then-reuse-values (Helm 3.14 or later), or a file with your values. If it is null in your values, leave it out" $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A pod whose request is more than its limit can't be created. */}}
{{- define "gaocache.checkResources" -}}
{{- $name := index . 0 }}
{{- $resources := index . 1 | default dict }}
{{- range $of, $amounts := pick $resources "requests" "limits" }}
{{- range $what, $amount := pick ($amounts | default dict) "memory" "ephemeral-storage" }}
{{- $text := toString $amount }}
{{- if and $amount (not (regexMatch "^[0-9]+([.][0-9]+)?(e[+]?[0-9]+|[kMGT]|[KMGT]i)?$" $text)) }}
{{- fail (printf "%s.%s.%s (%s) is not a quantity of Kubernetes, such as 512Mi or 1Gi" $name $of $what $text) }}
{{- end }}
{{- if and $amount (eq $what "memory") (lt (include "gaocache.bytes" $amount | int64) (int64 1048576)) }}
{{- fail (printf "%s.%s.memory (%s) is less than 1Mi: without a unit, it is a number of bytes; write 768Mi, for example" $name $of $text) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $what, $as := dict "cpu" "gaocache.millicores" "memory" "gaocache.bytes" "ephemeral-storage" "gaocache.bytes" }}
{{- $request := get ($resources.requests | default dict) $what }}
{{- $limit := get ($resources.limits | default dict) $what }}
{{- if and $request $limit }}
{{- if gt (include $as $request | int64) (include $as $limit | int64) }}
{{- fail (printf "%s.requests.%s (%v) is more than %s.limits.%s (%v), and Kubernetes would refuse the pods. Lower the request, or raise the limit" $name $what $request $name $what $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gaocache.checkPorts" -}}
{{- $ports := dict "grpcPort" .Values.service.grpcPort "httpPort" .Values.service.httpPort }}
{{- if .Values.redis.enabled }}
{{- $_ := set $ports "redisPort" .Values.service.redisPort }}
{{- end }}
{{- $taken := dict }}
{{- range $name, $port := $ports }}
{{- $port = int $port | toString }}
{{- if hasKey $taken $port }}
{{- fail (printf "service.%s and service.%s are both %s: the ports of the service must differ" (get $taken $port) $name $port) }}
{{- end }}
{{- $_ := set $taken $port $name }}
{{- end }}
{{- end }}

{{- define "gaocache.checkEtcd" -}}
{{- with .Values.externalEtcd }}
{{- if and $.Values.etcd.enabled (or .endpoints .credentialsSecret .tlsSecret .clientCertificate) }}
{{- fail "externalEtcd has no effect while the release runs an etcd of its own; set etcd.enabled=false, or leave externalEtcd out" }}
{{- end }}
{{- $user := ((($.Values.settings).registry).etcd).username }}
{{- $password := ((($.Values.settings).registry).etcd).password_file }}
{{- if and (ne (empty $user) (empty $password)) (not .credentialsSecret) (not $.Values.existingSecret) }}
{{- fail "settings.registry.etcd.username and password_file must be set together; or set externalEtcd.credentialsSecret" }}
{{- end }}
{{- if and .clientCertificate (not .tlsSecret) }}
{{- fail "externalEtcd.clientCertificate requires externalEtcd.tlsSecret, the Secret that the certificate is in" }}
{{- end }}
{{- end }}
{{- if .Values.etcd.enabled }}
{{- if ((($.Values.settings).registry).etcd).endpoints }}
{{- fail "settings.registry.etcd.endpoints contradicts etcd.enabled, by which the release runs an etcd of its own; set etcd.enabled=false and externalEtcd.endpoints" }}
{{- end }}
{{- $replicas := int .Values.etcd.replicas }}
{{- if not (has $replicas (list 1 3)) }}
{{- fail (printf "etcd.replicas is %d, but must be 1 or 3: an even-sized etcd tolerates no more failures than one with a member less. For other sizes, use externalEtcd" $replicas) }}
{{- end }}
{{- if and (gt $replicas 1) (not .Values.etcd.persistence.enabled) }}
{{- fail "etcd.persistence.enabled=false requires etcd.replicas=1: of three members, one that comes back without its data breaks the cluster" }}
{{- end }}
{{- with .Values.etcd.tls }}
{{- if and .enabled (not .secret) (not .certManager.enabled) }}
{{- fail "etcd.tls.enabled requires a certificate: set etcd.tls.secret or etcd.tls.certManager.enabled" }}
{{- end }}
{{- if and .enabled .secret .certManager.enabled }}
{{- fail "etcd.tls.secret contradicts etcd.tls.certManager.enabled, which makes Secrets of its own" }}
{{- end }}
{{- if and .certManager.enabled (not .certManager.issuerRef.name) }}
{{- fail "etcd.tls.certManager.enabled requires etcd.tls.certManager.issuerRef.name" }}
{{- end }}
{{- if and (or .secret .certManager.enabled) (not .enabled) }}
{{- fail "there is a certificate for etcd, but etcd.tls.enabled is false" }}
{{- end }}
{{- end }}
{{- /* This only makes the message clear. Where nothing can be looked up, as with Argo CD, the API
server rejects the change, because the name of the volume claims has the size in it. */}}
{{- $standing := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "gaocache.etcdName" .) }}
{{- if $standing }}
{{- if ne (int $standing.spec.replicas) $replicas }}
{{- if gt (int $standing.spec.replicas) 0 }}
{{- fail (printf "etcd.replicas can't be changed from %d to %d: the members were bootstrapped as a cluster of that size; keep the size, or reinstall" (int $standing.spec.replicas) $replicas) }}
{{- end }}
{{- end }}
{{- range $standing.spec.volumeClaimTemplates }}
{{- $size := .spec.resources.requests.storage }}
{{- $persistence := $.Values.etcd.persistence }}
{{- $class := .spec.storageClassName | default "" }}
{{- if ne (include "gaocache.bytes" $size) (include "gaocache.bytes" $persistence.size) }}
{{- fail (printf "etcd.persistence.size can't be changed from %s to %s, because Kubernetes changes no volume claims of a StatefulSet. docs/production.md has the steps (etcd, another size of volumes)" $size $persistence.size) }}
{{- end }}
{{- if and $persistence.storageClass (ne $class $persistence.storageClass) }}
{{- fail (printf "etcd.persistence.storageClass can't be changed from '%s' to '%s', because Kubernetes changes no volume claims of a StatefulSet. docs/production.md has the steps (etcd, another size of volumes)" $class $persistence.storageClass) }}
{{- end }}
{{- end }}
{{- end }}
{{- else if not .Values.externalEtcd.endpoints }}
{{- fail "etcd.enabled=false requires externalEtcd.endpoints" }}
{{- end }}
{{- end }}

{{- define "gaocache.checkScaling" -}}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas (%v) is more than autoscaling.maxReplicas (%v)" .minReplicas .maxReplicas) }}
{{- end }}
{{- if ne $.Values.replicasKeptBy "autoscaler" }}
{{- fail (printf "autoscaling.enabled requires replicasKeptBy=autoscaler, but that is %s" $.Values.replicasKeptBy) }}
{{- end }}
{{- /* Kubernetes takes a limit for the request that is missing. */}}
{{- range $resource, $target := dict "CPU" .targetCPUUtilizationPercentage "Memory" .targetMemoryUtilizationPercentage }}
{{- $name := lower $resource }}
{{- if and $target (not (get (($.Values.resources).requests | default dict) $name)) (not (get (($.Values.resources).limits | default dict) $name)) }}
{{- fail (printf "autoscaling.target%sUtilizationPercentage is a percentage of resources.requests.%s, which is not set; set the request, or set the target to 0 and add autoscaling.metrics" $resource $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
