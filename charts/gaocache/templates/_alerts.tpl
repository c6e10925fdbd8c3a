{{/* The recording rules and alerts: one template for the PrometheusRule and, rendered with the default
values, for alerts/gaocache.yaml. docs/alerts.md is the runbook.

Rules for alerts: one cause fires one alert; what stops reads is critical and the rest is a warning;
nothing fires while pods roll; `namespace` and `release` stay on every alert.

alert: list $ "name" "severity" "for"; renders the head of an alert. */}}
{{- define "gaocache.alert" -}}
- alert: {{ index . 1 }}
  {{- with index . 3 }}
  for: {{ . }}
  {{- end }}
  labels:
    severity: {{ get (index . 0).Values.prometheusRule.severities (index . 1) | default (index . 2) }}
    namespace: {{ (index . 0).Release.Namespace }}
    release: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "gaocache.runbook" -}}
{{- with (index . 0).Values.prometheusRule.runbookUrl }}
    runbook_url: {{ . }}#{{ lower (index $ 1) }}
{{- end }}
{{- end }}

{{- define "gaocache.selectorOfSeries" -}}
{{- default (printf "namespace=%q,release=%q" .Release.Namespace .Release.Name) .Values.prometheusRule.selector }}
{{- end }}

{{/* Sums per window, so that the burn-rate alerts read few series. The label `slo` tells the alerts
which of them are of this release, whatever the selector of the series. A failed get is one that neither
the caller nor a missing key is to blame for. Prometheus 3 writes the bound "1" as "1.0". */}}
{{- define "gaocache.recordingRules" -}}
{{- $s := include "gaocache.selectorOfSeries" . }}
{{- $t := .Values.prometheusRule.thresholds }}
{{- $good := "hit|peer|stale|origin|not_found" }}
{{- $callers := "invalid_request|unknown_group" }}
{{- $slo := include "gaocache.service" . }}
{{- range $window := list "5m" "30m" "1h" "2h" "6h" "1d" "3d" }}
- record: gaocache:gets:rate{{ $window }}
  labels: {slo: {{ $slo }}}
  expr: sum by (namespace, release) (rate(gaocache_requests_total{ {{- $s }},outcome!~"{{ $callers }}"}[{{ $window }}]))
- record: gaocache:gets_failed:rate{{ $window }}
  labels: {slo: {{ $slo }}}
  expr: sum by (namespace, release) (rate(gaocache_requests_total{ {{- $s }},outcome!~"{{ $good }}|{{ $callers }}"}[{{ $window }}]))
{{- end }}
{{- range $window := list "5m" "30m" "1h" "6h" }}
- record: gaocache:gets_timed:rate{{ $window }}
  labels: {slo: {{ $slo }}}
  expr: sum by (namespace, release) (rate(gaocache_request_duration_seconds_count{ {{- $s }}}[{{ $window }}]))
- record: gaocache:gets_slow:rate{{ $window }}
  labels: {slo: {{ $slo }}}
  expr: |
    sum by (namespace, release) (rate(gaocache_request_duration_seconds_count{ {{- $s }}}[{{ $window }}]))
    - sum by (namespace, release) (rate(gaocache_request_duration_seconds_bucket{ {{- $s }},le=~"{{ include "gaocache.bound" $t.latencySeconds }}"}[{{ $window }}]))
{{- end }}
{{- end }}

{{- define "gaocache.bound" -}}
{{- $text := toString . }}
{{- ternary $text (printf "%s|%s[.]0" $text $text) (contains "." $text) }}
{{- end }}

{{/* burn: dict "slo" "bad" "all" "budget" ratio "long" "short" "factor" "seconds" of the short window,
"least" bad gets that count. True while the budget burns that fast in both windows. */}}
{{- define "gaocache.burn" -}}
{{- $limit := mulf .factor .budget | printf "%.6g" -}}
{{- $of := printf "{slo=%q}" .slo -}}
(
  {{ .bad }}:rate{{ .long }}{{ $of }} / {{ .all }}:rate{{ .long }}{{ $of }} > {{ $limit }}
  and {{ .bad }}:rate{{ .short }}{{ $of }} / {{ .all }}:rate{{ .short }}{{ $of }} > {{ $limit }}
  and {{ .bad }}:rate{{ .short }}{{ $of }} * {{ .seconds }} >= {{ .least }}
)
{{- end }}

{{- define "gaocache.budgetAlerts" -}}
{{- $t := .Values.prometheusRule.thresholds }}
{{- $failed := dict "slo" (include "gaocache.service" .) "bad" "gaocache:gets_failed" "all" "gaocache:gets" "budget" (divf (subf 100 $t.availabilityObjective) 100) "least" $t.badGets }}
{{- $slow := dict "slo" (include "gaocache.service" .) "bad" "gaocache:gets_slow" "all" "gaocache:gets_timed" "budget" (divf (subf 100 $t.latencyObjective) 100) "least" $t.badGets }}
{{- $hour := dict "long" "1h" "short" "5m" "factor" 14.4 "seconds" 300 }}
{{- $day := dict "long" "6h" "short" "30m" "factor" 6.0 "seconds" 1800 }}
{{ include "gaocache.alert" (list . "GaocacheGetsFailing" "critical" "1m") }}
  # At this rate, the budget of 30 days lasts two or five days.
  expr: |
    sum without (slo) (
    {{- include "gaocache.burn" (merge (dict) $failed $hour) | nindent 6 }}
      or
    {{- include "gaocache.burn" (merge (dict) $failed $day) | nindent 6 }}
    )
  annotations:
    summary: "Gets of {{ .Release.Namespace }}/{{ .Release.Name }} are failing"
    description: {{ `"{{ $value | humanizePercentage }} of the gets of the last hours failed, of which` }} {{ printf "%.6g" (subf 100 $t.availabilityObjective) }} % are allowed. If GaocacheOriginErrors fires as well, the origin is the cause."
    {{- include "gaocache.runbook" (list . "GaocacheGetsFailing") }}
{{ include "gaocache.alert" (list . "GaocacheErrorBudgetBurning" "warning" "15m") }}
  # At this rate, the budget of 30 days lasts ten or thirty days. Faster, it is GaocacheGetsFailing.
  expr: |
    sum without (slo) ((
    {{- include "gaocache.burn" (merge (dict "long" "1d" "short" "2h" "factor" 3.0 "seconds" 7200) $failed) | nindent 6 }}
      or
    {{- include "gaocache.burn" (merge (dict "long" "3d" "short" "6h" "factor" 1.0 "seconds" 21600) $failed) | nindent 6 }}
    ) unless (
    {{- include "gaocache.burn" (merge (dict) $failed $hour) | nindent 6 }}
      or
    {{- include "gaocache.burn" (merge (dict) $failed $day) | nindent 6 }}
    ))
  annotations:
    summary: "Gets of {{ .Release.Namespace }}/{{ .Release.Name }} have been failing for long"
    description: {{ `"{{ $value | humanizePercentage }} of the gets failed in the last day or longer, of which` }} {{ printf "%.6g" (subf 100 $t.availabilityObjective) }} % are allowed. See which outcome of gaocache_requests_total has grown."
    {{- include "gaocache.runbook" (list . "GaocacheErrorBudgetBurning") }}
{{ include "gaocache.alert" (list . "GaocacheGetsSlow" "warning" "5m") }}
  expr: |
    sum without (slo) (
    {{- include "gaocache.burn" (merge (dict) $slow $hour) | nindent 6 }}
      or
    {{- include "gaocache.burn" (merge (dict) $slow $day) | nindent 6 }}
    )
  annotations:
    summary: "Gets of {{ .Release.Namespace }}/{{ .Release.Name }} are slow"
    description: {{ `"{{ $value | humanizePercentage }} of the gets of the last hours took longer than` }} {{ $t.latencySeconds }} s, of which {{ printf "%.6g" (subf 100 $t.latencyObjective) }} % may. If GaocacheOriginSlow fires as well, the origin is the cause."
    {{- include "gaocache.runbook" (list . "GaocacheGetsSlow") }}
{{- end }}

{{- define "gaocache.nodeAlerts" -}}
{{- $s := include "gaocache.selectorOfSeries" . }}
{{- $t := .Values.prometheusRule.thresholds }}
{{- $replicas := ternary .Values.autoscaling.minReplicas .Values.replicas .Values.autoscaling.enabled | int }}
{{ include "gaocache.alert" (list . "GaocacheOutage" "critical" (printf "%dm" (int $t.outageMinutes))) }}
  expr: absent(gaocache_build_info{ {{- $s }}})
  annotations:
    summary: "No node of {{ .Release.Namespace }}/{{ .Release.Name }} can be scraped"
    description: All nodes are gone, or Prometheus can't reach any of them. Look at the pods first.
    {{- include "gaocache.runbook" (list . "GaocacheOutage") }}
{{ include "gaocache.alert" (list . "GaocacheNotReady" "critical" (printf "%dm" (int $t.outageMinutes))) }}
  expr: max by (namespace, release) (gaocache_ready{ {{- $s }}}) == 0
  annotations:
    summary: "No node of {{ .Release.Namespace }}/{{ .Release.Name }} is ready"
    description: The nodes run, but none of them is ready, so the service has no endpoints. /readyz on the admin port states the reason.
    {{- include "gaocache.runbook" (list . "GaocacheNotReady") }}
{{ include "gaocache.alert" (list . "GaocacheNodesNotScraped" "warning" "5m") }}
  # Nodes that are in the ring. Those that are not in the ring are GaocacheRingTooSmall.
  expr: |
    max by (namespace, release) (gaocache_ring_members{ {{- $s }}})
    - max_over_time(count by (namespace, release) (gaocache_build_info{ {{- $s }}})[{{ int $t.downMinutes }}m:30s]) > 0
  annotations:
    summary: "Nodes of {{ .Release.Namespace }}/{{ .Release.Name }} are not scraped"
    description: {{ `"Prometheus has no metrics of {{ $value }} node(s) in the ring. Look at its targets, and at network policies."` }}
    {{- include "gaocache.runbook" (list . "GaocacheNodesNotScraped") }}
{{ include "gaocache.alert" (list . "GaocacheRingTooSmall" "warning" "5m") }}
  # The maximum over time: in a rolling restart, the ring is complete again before the next pod.
  expr: max by (namespace, release) (max_over_time(gaocache_ring_members{ {{- $s }}}[{{ int $t.ringMinutes }}m])) < {{ $replicas }}
  annotations:
    summary: "The ring of {{ .Release.Namespace }}/{{ .Release.Name }} lacks members"
    description: {{ `"The ring has {{ $value }} members instead of` }} {{ $replicas }}. Look for pods that are missing or not ready, and find out why (/readyz, kubectl describe pod)."
    {{- include "gaocache.runbook" (list . "GaocacheRingTooSmall") }}
{{ include "gaocache.alert" (list . "GaocacheMembersDisagree" "warning" (printf "%dm" (int $t.disagreeMinutes))) }}
  # Only nodes whose ring is at rest: while pods roll, samples of different moments always differ.
  expr: |
    count by (namespace, release) (count_values by (namespace, release) ("fingerprint",
      gaocache_ring_fingerprint{ {{- $s }}} unless changes(gaocache_ring_fingerprint{ {{- $s }}}[2m]) > 0
    )) > 1
  annotations:
    summary: "The nodes of {{ .Release.Namespace }}/{{ .Release.Name }} disagree on the members"
    description: {{ `"There are {{ $value }} different rings, so a key may be loaded by more than one node. Compare /ring on the pods, and check whether one of them can't reach etcd."` }}
    {{- include "gaocache.runbook" (list . "GaocacheMembersDisagree") }}
{{ include "gaocache.alert" (list . "GaocacheDrainOverran" "warning" "") }}
  # Entries must still be waiting: after a drain that was fast, open requests may keep the process.
  expr: |
    max by (namespace, release, pod) (
      timestamp(gaocache_draining_since_timestamp_seconds{ {{- $s }}}) - gaocache_draining_since_timestamp_seconds{ {{- $s }}}
      and gaocache_draining_since_timestamp_seconds{ {{- $s }}} > 0
    ) > {{ .Values.drain.timeoutSeconds }}
    and max by (namespace, release, pod) (gaocache_handoff_waiting_entries{ {{- $s }}}) > 0
  annotations:
    summary: {{ `"{{ $labels.pod }} could not hand over its entries within the drain timeout"` }}
    description: {{ `"The node has been leaving for {{ $value | humanizeDuration }}. The entries that it still holds are loaded again. Increase drain.timeoutSeconds."` }}
    {{- include "gaocache.runbook" (list . "GaocacheDrainOverran") }}
{{ include "gaocache.alert" (list . "GaocacheCredentialsStale" "warning" "10m") }}
  expr: |
    count by (namespace, release, source) (gaocache_auth_source_stale{ {{- $s }}} == 1)
  annotations:
    summary: {{ `"{{ $value }} nodes can't read what proves who their callers are ({{ $labels.source }})"` }}
    description: {{ `"Tokens or keys that were replaced or taken back since then count as before. The log of the nodes says what is wrong with the file or URL."` }}
    {{- include "gaocache.runbook" (list . "GaocacheCredentialsStale") }}
{{ include "gaocache.alert" (list . "GaocacheSettingsRefused" "warning" "5m") }}
  expr: count by (namespace, release) (gaocache_reload_refused{ {{- $s }}} == 1)
  annotations:
    summary: {{ `"{{ $value }} nodes refused their new settings and run with older ones"` }}
    description: {{ `"Nothing of the new settings is in force. A node that restarts with them will not start. GET /config on the admin listener, and the log, say what is wrong."` }}
    {{- include "gaocache.runbook" (list . "GaocacheSettingsRefused") }}
{{ include "gaocache.alert" (list . "GaocacheCertificateUnusable" "warning" "5m") }}
  # While files are replaced one after the other, they don't fit each other for a moment.
  expr: max by (namespace, release, pod, listener) (gaocache_certificate_files_unusable{ {{- $s }}}) > 0
  annotations:
    summary: {{ `"{{ $labels.pod }} can't use the new certificate of its listener {{ $labels.listener }}"` }}
    description: {{ `"The certificate from before stays in use, until it expires. The node's log says what is wrong with the files."` }}
    {{- include "gaocache.runbook" (list . "GaocacheCertificateUnusable") }}
{{ include "gaocache.alert" (list . "GaocacheCertificateExpires" "warning" "5m") }}
  # A tenth of its life is left: whoever renews it should have done so at a third or at half.
  expr: |
    max by (namespace, release, pod, listener) (
      (gaocache_certificate_not_after_timestamp_seconds{ {{- $s }}} - timestamp(gaocache_certificate_not_after_timestamp_seconds{ {{- $s }}}))
      / (gaocache_certificate_not_after_timestamp_seconds{ {{- $s }}} - gaocache_certificate_not_before_timestamp_seconds{ {{- $s }}})
    ) < 0.1
  annotations:
    summary: {{ `"The certificate of {{ $labels.pod }} for its listener {{ $labels.listener }} is about to expire"` }}
    description: {{ `"{{ $value | humanizePercentage }} of its life is left. Find out why it has not been renewed: look at the Certificate and its Secret, and at gaocache_certificate_files_unusable."` }}
    {{- include "gaocache.runbook" (list . "GaocacheCertificateExpires") }}
{{- end }}

{{- define "gaocache.etcdAlerts" -}}
{{- $s := include "gaocache.selectorOfSeries" . }}
{{- $t := .Values.prometheusRule.thresholds }}
{{- $silent := printf "(timestamp(gaocache_registry_heard_timestamp_seconds{%s}) - gaocache_registry_heard_timestamp_seconds{%s} and gaocache_registry_heard_timestamp_seconds{%s} > 0)" $s $s $s }}
{{ include "gaocache.alert" (list . "GaocacheEtcdUnreachable" "warning" "1m") }}
  # One alert for the release, and no page: reads go on without etcd.
  expr: |
    count by (namespace, release) (
      {{ $silent }} > {{ $t.etcdSilentSeconds }}
    )
  annotations:
    summary: "Nodes of {{ .Release.Namespace }}/{{ .Release.Name }} can't reach etcd"
    description: {{ `"{{ $value }} nodes have not heard from etcd for more than` }} {{ $t.etcdSilentSeconds }} s. Reads continue with the last known ring, but members that join or leave are not seen. Don't scale or roll until etcd is back."
    {{- include "gaocache.runbook" (list . "GaocacheEtcdUnreachable") }}
{{ include "gaocache.alert" (list . "GaocacheLeaseNotRenewed" "warning" "3m") }}
  # Not while etcd is unreachable, which is an alert of its own.
  expr: |
    min by (namespace, release, pod) (
      gaocache_lease_expiry_timestamp_seconds{ {{- $s }}} - timestamp(gaocache_lease_expiry_timestamp_seconds{ {{- $s }}})
      and gaocache_lease_expiry_timestamp_seconds{ {{- $s }}} > 0
    ) < {{ divf .Values.registry.leaseTtlSeconds 4 | printf "%.6g" }}
    unless on (namespace, release) {{ $silent }} > 60
  annotations:
    summary: {{ `"{{ $labels.pod }} reaches etcd but can't renew its lease"` }}
    description: {{ `"The lease has expired or is about to expire ({{ $value | humanizeDuration }} left). Without a lease, the node drops out of the ring. Check gaocache_lease_renewals_total by outcome, and the node's log."` }}
    {{- include "gaocache.runbook" (list . "GaocacheLeaseNotRenewed") }}
{{- if .Values.etcd.enabled }}
{{ include "gaocache.alert" (list . "GaocacheEtcdMemberDown" "warning" (printf "%dm" (int $t.downMinutes))) }}
  expr: |
    count by (namespace, release) (etcd_server_has_leader{ {{- $s }}} == 1) < {{ .Values.etcd.replicas }}
    unless on (namespace, release) {{ $silent }} > 60
  annotations:
    summary: "An etcd member of {{ .Release.Namespace }}/{{ .Release.Name }} is down"
    description: {{ `"Only {{ $value }} of` }} {{ .Values.etcd.replicas }} members are well. etcd works as long as most members do. A member that has lost its volume does not come back by itself."
    {{- include "gaocache.runbook" (list . "GaocacheEtcdMemberDown") }}
{{ include "gaocache.alert" (list . "GaocacheEtcdDatabaseFull" "warning" "10m") }}
  expr: max by (namespace, release) (etcd_mvcc_db_total_size_in_bytes{ {{- $s }}} / etcd_server_quota_backend_bytes{ {{- $s }}}) > {{ $t.etcdDatabaseRatio }}
  annotations:
    summary: "The etcd database of {{ .Release.Namespace }}/{{ .Release.Name }} is filling up"
    description: {{ `"It is at {{ $value | humanizePercentage }} of its quota. A full etcd accepts no registrations. Defragment it, or raise etcd.quotaBackendBytes."` }}
    {{- include "gaocache.runbook" (list . "GaocacheEtcdDatabaseFull") }}
{{- end }}
{{- end }}

{{- define "gaocache.groupAlerts" -}}
{{- $s := include "gaocache.selectorOfSeries" . }}
{{- $t := .Values.prometheusRule.thresholds }}
{{- $failed := printf "sum by (namespace, release, group) (increase(gaocache_origin_loads_total{%s,outcome!~\"ok|not_found\"}[10m]))" $s }}
{{- $breakers := printf "count by (namespace, release, group) (gaocache_origin_breaker_state{%s} > 0)" $s }}
{{- $loads := printf "sum by (namespace, release, group) (increase(gaocache_origin_load_duration_seconds_count{%s}[10m]))" $s }}
{{- $fast := printf "sum by (namespace, release, group) (increase(gaocache_origin_load_duration_seconds_bucket{%s,le=~%q}[10m]))" $s (include "gaocache.bound" $t.originSlowSeconds) }}
{{- $gets := printf "sum by (namespace, release, group) (rate(gaocache_requests_total{%s,outcome=~\"hit|peer|stale|origin|not_found\"}[15m]))" $s }}
{{- $served := printf "sum by (namespace, release, group) (rate(gaocache_requests_total{%s,outcome=~\"hit|peer|stale\"}[15m]))" $s }}
{{- /* Failed gets are left out: they have alerts of their own. */}}
{{- $before := printf "sum by (namespace, release, group) (rate(gaocache_requests_total{%s,outcome=~\"hit|peer|stale|origin|not_found\"}[6h] offset 15m))" $s }}
{{- $servedBefore := printf "sum by (namespace, release, group) (rate(gaocache_requests_total{%s,outcome=~\"hit|peer|stale\"}[6h] offset 15m))" $s }}
{{ include "gaocache.alert" (list . "GaocacheOriginErrors" "warning" "5m") }}
  # An open breaker has an alert of its own.
  expr: |
    {{ $failed }}
    / sum by (namespace, release, group) (increase(gaocache_origin_loads_total{ {{- $s }}}[10m])) > {{ $t.originErrorRatio }}
    and {{ $failed }} >= {{ $t.originErrors }}
    unless {{ $breakers }} > 0
  annotations:
    summary: {{ `"Loads of group {{ $labels.group }} from its origin are failing"` }}
    description: {{ `"{{ $value | humanizePercentage }} of the loads fail. Check the origin; the log shows the kind of error."` }}
    {{- include "gaocache.runbook" (list . "GaocacheOriginErrors") }}
{{ include "gaocache.alert" (list . "GaocacheOriginBreakerOpen" "warning" "2m") }}
  # Half-open counts too: it is so while a load finds out that the origin is still away.
  expr: {{ $breakers }} > 0
  annotations:
    summary: {{ `"The origin of group {{ $labels.group }} is not asked for now"` }}
    description: {{ `"The circuit breaker is open on {{ $value }} node(s), because loads failed or were slow. Check the origin; gets that need a load fail until it is back."` }}
    {{- include "gaocache.runbook" (list . "GaocacheOriginBreakerOpen") }}
{{ include "gaocache.alert" (list . "GaocacheOriginSlow" "warning" "5m") }}
  # A share of the loads, not a quantile: between two bounds, a quantile is a guess.
  expr: |
    1 - {{ $fast }}
    / {{ $loads }} > {{ $t.originSlowRatio }}
    and {{ $loads }}
    - {{ $fast }} >= {{ $t.originSlowLoads }}
  annotations:
    summary: {{ `"The origin of group {{ $labels.group }} is slow"` }}
    description: {{ `"{{ $value | humanizePercentage }} of the loads take longer than` }} {{ $t.originSlowSeconds }} s, including time in the queue. Check the origin, then origin.max_concurrency."
    {{- include "gaocache.runbook" (list . "GaocacheOriginSlow") }}
{{ include "gaocache.alert" (list . "GaocacheHitRatioFell" "warning" "10m") }}
  expr: |
    ({{ $served }} / {{ $gets }})
    < {{ subf 1 $t.hitRatioDrop | printf "%.6g" }} * ({{ $servedBefore }} / {{ $before }})
    and {{ $gets }} > {{ $t.hitRatioGetsPerSecond }}
  annotations:
    summary: {{ `"The hit ratio of group {{ $labels.group }} has dropped"` }}
    description: {{ `"It is {{ $value | humanizePercentage }}, at least` }} {{ mulf $t.hitRatioDrop 100 | printf "%.6g" }} % lower than in the six hours before. Look for evictions, a purge, or requests for keys that were not requested before."
    {{- include "gaocache.runbook" (list . "GaocacheHitRatioFell") }}
{{- end }}
