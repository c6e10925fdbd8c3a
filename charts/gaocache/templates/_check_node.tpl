{{/* What the node would refuse when it starts, as far as that can be told from the settings alone; the
reasons are in its own words. Its rules are in src/config/check. */}}
{{- define "gaocache.checkNode" -}}
{{- include "gaocache.checkGroups" . }}
{{- include "gaocache.checkMembers" . }}
{{- range $listener := list "grpc" "http" "redis" "admin" }}
{{- include "gaocache.checkListenerTls" (list $listener ((get $ $listener | default dict).tls | default dict)) }}
{{- end }}
{{- $reachable := not (regexMatch "^(127[.]|\\[::1\\])" ((.admin).listen | default "0.0.0.0:9090")) }}
{{- if and (has "admin" .auth.anonymous) $reachable (not (.admin).insecure) }}
{{- fail "auth.anonymous: anonymous callers can't have the role admin while the admin listener can be reached from other machines; remove admin, or set settings.admin.insecure=true. `kubectl exec` needs no role" }}
{{- end }}
{{- range .auth.anonymous }}
{{- if not (has . (list "read" "remove" "purge" "admin")) }}
{{- fail (printf "auth.anonymous: '%s' is not a role; the roles are read, remove, purge and admin" .) }}
{{- end }}
{{- end }}
{{- with .auth.jwt }}
{{- if and .jwks_file .jwks_url }}
{{- fail "settings.auth.jwt.jwks_file: set either a file or a URL, not both" }}
{{- end }}
{{- if or .jwks_file .jwks_url }}
{{- range $name, $value := dict "issuer" .issuer "audience" .audience }}
{{- if not $value }}
{{- fail (printf "settings.auth.jwt.%s must be set if JWTs are accepted, or those for other services would be accepted too" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether nodes find and trust each other. */}}
{{- define "gaocache.checkMembers" -}}
{{- $service := .registry.service }}
{{- if or (not $service) (contains "/" $service) (regexMatch "([.](roster|history|young|cluster)|-notices)$" $service) }}
{{- fail (printf "settings.registry.service (%s) must not be empty, contain '/', or end with any of '.roster', '.history', '.young', '.cluster', '-notices'. Unless it is set, it is the namespace and the full name; set fullnameOverride to another one" $service) }}
{{- end }}
{{- if and .node.zone .node.zone_file }}
{{- fail "settings.node.zone_file: set either settings.node.zone or settings.node.zone_file" }}
{{- end }}
{{- include "gaocache.checkPair" (list "settings.registry.etcd.tls" .registry.etcd.tls) }}
{{- with .peer }}
{{- $tls := .tls | default dict }}
{{- if or $tls.ca $tls.cert $tls.key }}
{{- if not (and $tls.ca $tls.cert $tls.key) }}
{{- fail "settings.peer.tls needs ca, cert and key" }}
{{- end }}
{{- if .insecure }}
{{- fail "settings.peer.insecure can't be true if peer.tls has certificates" }}
{{- end }}
{{- if not .allowed_peers }}
{{- fail "settings.peer.allowed_peers must name at least one peer: a certificate of the CA alone makes nobody a node" }}
{{- end }}
{{- range .allowed_peers }}
{{- if or (not .) (regexMatch "([{]id[}]|[*]).*([{]id[}]|[*])" .) }}
{{- fail (printf "peer.allowedPeers: '%s' must be a DNS name or a URI with at most one {id} or *" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gaocache.checkPair" -}}
{{- $tls := index . 1 | default dict }}
{{- if ne (empty $tls.cert) (empty $tls.key) }}
{{- fail (printf "%s: cert and key must be set together" (index . 0)) }}
{{- end }}
{{- end }}

{{- define "gaocache.checkListenerTls" -}}
{{- $where := printf "settings.%s.tls" (index . 0) }}
{{- $tls := index . 1 }}
{{- $asks := ne ($tls.client_auth | default "none") "none" }}
{{- include "gaocache.checkPair" (list $where $tls) }}
{{- if and $asks (not $tls.client_ca) }}
{{- fail (printf "%s.client_auth (%s) needs client_ca" $where $tls.client_auth) }}
{{- end }}
{{- if and $tls.client_ca (not $asks) }}
{{- fail (printf "%s.client_ca has no use while client_auth is none; set it to optional or required" $where) }}
{{- end }}
{{- if and $asks (not $tls.cert) }}
{{- fail (printf "%s.client_auth: a listener without TLS sees no certificates; set cert and key" $where) }}
{{- end }}
{{- end }}

{{/* The node does not start if it can't open the file of the audit, and the root file system is
read-only. What the chart itself mounts is read-only, too, or has no room. */}}
{{- define "gaocache.checkAudit" -}}
{{- $values := (index . 0).Values }}
{{- $audit := ((index . 1).log).audit | default "off" }}
{{- if and ($values.containerSecurityContext).readOnlyRootFilesystem (not (has $audit (list "off" "stdout" "stderr"))) }}
{{- $writable := false }}
{{- range $values.extraVolumeMounts }}
{{- if and (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $audit) (not .readOnly) }}{{ $writable = true }}{{ end }}
{{- end }}
{{- if not $writable }}
{{- fail (printf "settings.log.audit (%s) is on the read-only root file system; use stdout, or mount a volume there with extraVolumes and extraVolumeMounts" $audit) }}
{{- end }}
{{- end }}
{{- end }}
