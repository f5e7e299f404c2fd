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
{{- with $image.registry }}{{ . }}/{{ end }}eyepiece-{{ index . 1 | splitList "-" | first }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- if hasKey $part "gpus" }}-{{ ternary "cuda" "cpu" (gt (int $part.gpus) 0) }}{{ end }}
{{- end -}}

{{- /* A model's name in names of Kubernetes' objects. */ -}}
{{- define "eyepiece.slug" -}}
{{- . | replace "." "-" | replace "_" "-" | trimSuffix "-" -}}
{{- end -}}

{{- /* Makes `vllm-<model>` and `worker-<model>` of every further model parts like `vllm` and `worker`. */ -}}
{{- define "eyepiece.addParts" -}}
{{- range $model := .Values.otherModels -}}
{{- range $kind := list "vllm" "worker" -}}
{{- $own := mergeOverwrite (deepCopy (index $.Values $kind)) (deepCopy (index $model $kind | default dict)) -}}
{{- $_ := set $.Values (printf "%s-%s" $kind (include "eyepiece.slug" $model.name)) $own -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* NAME=URL of all models, the default first: each has a port of its own at HAProxy, from 8111 on. */ -}}
{{- define "eyepiece.models" -}}
{{- $url := printf "http://%s-haproxy" (include "eyepiece.name" .) -}}
{{- .Values.model }}={{ $url }}:8101
{{- range $index, $model := .Values.otherModels }},{{ $model.name }}={{ $url }}:{{ add 8111 $index }}{{ end -}}
{{- end -}}

{{- define "eyepiece.secret" -}}
{{- required "secrets.existingSecret is needed: a Secret with llm-api-key and redis-password (or redis-url)" .Values.secrets.existingSecret -}}
{{- end -}}

{{- define "eyepiece.storeClaim" -}}
{{- .Values.store.existingClaim | default (printf "%s-store" (include "eyepiece.name" .)) -}}
{{- end -}}

{{- define "eyepiece.auditClaim" -}}
{{- .Values.audit.existingClaim | default (printf "%s-audit" (include "eyepiece.name" .)) -}}
{{- end -}}
