{{/* What the node would refuse when it starts, as far as that can be told from the settings alone; the
reasons are in its own words. Its rules are in src/config/check. */}}
{{- define "gaocache.checkNode" -}}
{{- include "gaocache.checkGroups" . }}
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

{{/* Groups, and whether their values fit into the cache and into what may be in flight. */}}
{{- define "gaocache.checkGroups" -}}
{{- $capacity := include "gaocache.bytes" .cache.capacity | int64 }}
{{- $largest := int64 0 }}
{{- range $number, $group := .groups }}
{{- /* The default is that of docs/configuration.md. */}}
{{- $max := $group.max_value | default "8MiB" }}
{{- $bytes := include "gaocache.bytes" $max | int64 }}
{{- $largest = max $largest $bytes }}
{{- /* What an entry is charged: whole pages, and its place in the store. */}}
{{- $charge := add (mul (div (add $bytes 4127) 4096) 4096) 28 }}
{{- if gt $charge (sub $capacity (div $capacity 8)) }}
{{- fail (printf "groups[%d].max_value (%s has %v) must fit into seven eighths of the capacity (%d bytes); lower it, or raise cache.capacity" $number $group.name $max $capacity) }}
{{- end }}
{{- if and (gt (float64 ($group.soft_timeout_seconds | default 0)) 0.0) (le (float64 ($group.stale_if_error_seconds | default 0)) 0.0) }}
{{- fail (printf "groups[%d].soft_timeout_seconds (%s) needs stale_if_error_seconds: otherwise no value is kept past its TTL" $number $group.name) }}
{{- end }}
{{- end }}
{{- $inFlight := include "gaocache.bytes" (.cache.in_flight | default 0) | int64 }}
{{- /* With the head of the value, in seven eighths of the limit: the rest is kept for what is small. */}}
{{- $least := add (mul (div (add $largest 65536) 7) 8) 8 }}
{{- if and $inFlight (lt $inFlight $least) }}
{{- fail (printf "settings.cache.in_flight (%v): a value of the largest max_value needs %d bytes" .cache.in_flight $least) }}
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
