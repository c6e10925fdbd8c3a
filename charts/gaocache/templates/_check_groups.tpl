{{/* What the node would refuse of groups; see _check_node.tpl. */}}

{{/* Groups, and whether their values fit into the cache and into what may be in flight. */}}
{{- define "gaocache.checkGroups" -}}
{{- $capacity := include "gaocache.bytes" .cache.capacity | int64 }}
{{- $largest := int64 0 }}
{{- $shares := 0.0 }}
{{- range $number, $group := .groups }}
{{- /* The default is that of docs/configuration.md. */}}
{{- $max := $group.max_value | default "8MiB" }}
{{- $bytes := include "gaocache.bytes" $max | int64 }}
{{- $largest = max $largest $bytes }}
{{- if ge $bytes (int64 4294901760) }}
{{- fail (printf "groups[%d].max_value (%s has %v) must be less than 4 GiB" $number $group.name $max) }}
{{- end }}
{{- /* What an entry is charged: whole pages, and its place in the store. */}}
{{- $charge := add (mul (div (add $bytes 4127) 4096) 4096) 28 }}
{{- if gt $charge (sub $capacity (div $capacity 8)) }}
{{- fail (printf "groups[%d].max_value (%s has %v) must fit into seven eighths of the capacity (%d bytes); lower it, or raise cache.capacity" $number $group.name $max $capacity) }}
{{- end }}
{{- if and (gt (float64 ($group.soft_timeout_seconds | default 0)) 0.0) (le (float64 ($group.stale_if_error_seconds | default 0)) 0.0) }}
{{- fail (printf "groups[%d].soft_timeout_seconds (%s) needs stale_if_error_seconds: otherwise no value is kept past its TTL" $number $group.name) }}
{{- end }}
{{- $share := float64 ($group.memory_share | default 0) }}
{{- $limit := float64 ($group.memory_limit | default 0) }}
{{- if and (gt $limit 0.0) (gt $share $limit) }}
{{- fail (printf "groups[%d].memory_limit (%s has %v): a share of memory must not be larger than the limit" $number $group.name $limit) }}
{{- end }}
{{- $shares = addf $shares $share }}
{{- end }}
{{- if gt $shares 1.000000001 }}
{{- fail (printf "groups: the shares of memory of all groups add up to %.3f, more than 1" $shares) }}
{{- end }}
{{- range $number, $group := .groups }}
{{- include "gaocache.checkOrigin" (list (printf "groups[%d].origin" $number) $group) }}
{{- end }}
{{- $inFlight := include "gaocache.bytes" (.cache.in_flight | default 0) | int64 }}
{{- /* With the head of the value, in seven eighths of the limit: the rest is kept for what is small. */}}
{{- $least := add (mul (div (add $largest 65536) 7) 8) 8 }}
{{- if and $inFlight (lt $inFlight $least) }}
{{- fail (printf "settings.cache.in_flight (%v): a value of the largest max_value needs %d bytes" .cache.in_flight $least) }}
{{- end }}
{{- end }}

{{/* Where a group's values come from. Neither a URL nor a header is shown: both may be secrets. The
rules are those of src/http_client/template.rs. */}}
{{- define "gaocache.checkOrigin" -}}
{{- $where := index . 0 }}
{{- $group := index . 1 }}
{{- with $group.origin.url }}
{{- $user := "([^/?#\\\\@{}\\s]*@)?" }}
{{- $host := "(\\[[0-9A-Fa-f:.]+\\]|[^/?#\\\\@:{}\\[\\]<>|^%\\s]+)" }}
{{- $port := "(:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|0*[0-9]{0,4}))?" }}
{{- if not (regexMatch (printf "^https?://%s%s%s([/?\\\\]|$)" $user $host $port) .) }}
{{- fail (printf "%s.url (of %s) must have a valid host after http:// or https://, and a port of at most 65535 if it has one; {key} must be in the path or the query" $where $group.name) }}
{{- end }}
{{- if regexMatch "#.*[{][+]?key[}]" . }}
{{- fail (printf "%s.url (of %s): {key} must not be in the fragment, which is never sent" $where $group.name) }}
{{- end }}
{{- if regexMatch "://[^?#]*[/\\\\](\\.|%2[eE]){1,2}([/\\\\?#]|$)" . }}
{{- fail (printf "%s.url (of %s) must not contain the path segments . or .." $where $group.name) }}
{{- end }}
{{- end }}
{{- range $header, $_ := merge dict ($group.origin.headers | default dict) ($group.origin.header_files | default dict) }}
{{- if not (regexMatch "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,255}$" $header) }}
{{- fail (printf "%s.headers (of %s): '%s' is not a valid header name" $where $group.name $header) }}
{{- end }}
{{- end }}
{{- range $header, $value := $group.origin.headers }}
{{- if regexMatch "[\\x00-\\x08\\x0a-\\x1f\\x7f]" (regexReplaceAll "[\\r\\n]+$" $value "") }}
{{- fail (printf "%s.headers (of %s): the value of %s has a line break or another character that no header may have" $where $group.name $header) }}
{{- end }}
{{- end }}
{{- end }}
