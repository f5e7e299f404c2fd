{{- define "eyepiece.name" -}}
{{- if contains "eyepiece" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-eyepiece" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels that select the pods of one part: (list $ "api"). */ -}}
{{- define "eyepiece.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: eyepiece
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "eyepiece.labels" -}}
{{- $root := index . 0 -}}
{{ include "eyepiece.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- /* The builds stand in the tag, and who has GPUs gets those with CUDA; the API has neither. */ -}}
{{- define "eyepiece.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- $part := index $root.Values (index . 1) -}}
{{- with $image.registry }}{{ . }}/{{ end }}eyepiece-{{ index . 1 }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- if hasKey $part "gpus" }}-{{ ternary "cuda" "cpu" (gt (int $part.gpus) 0) }}{{ end }}
{{- end -}}

{{- define "eyepiece.secret" -}}
{{- required "secrets.existingSecret is needed: a Secret with llm-api-key and redis-password (or redis-url)" .Values.secrets.existingSecret -}}
{{- end -}}

{{- define "eyepiece.storeClaim" -}}
{{- .Values.store.existingClaim | default (printf "%s-store" (include "eyepiece.name" .)) -}}
{{- end -}}
