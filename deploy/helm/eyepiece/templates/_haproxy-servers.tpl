{{- /* The servers of haproxy.cfg. Names are whole: HAProxy knows no search domain. */ -}}
{{- define "eyepiece.haproxyServers" -}}
{{- include "eyepiece.addParts" . -}}
{{- $name := include "eyepiece.name" . -}}
{{- $domain := printf "%s.svc.%s" .Release.Namespace .Values.clusterDomain -}}
{{- $find := "resolvers cluster resolve-prefer ipv4 init-addr none" -}}
resolvers cluster
    parse-resolv-conf
    accepted_payload_size 8192
    resolve_retries 3
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s
    # Servers stay where they were while nobody answers for their names.
    hold timeout 1h
    hold refused 1h
    hold other 1h
    hold nx 0s
    hold obsolete 5s

backend api from api_rules
    server-template api 1-{{ .Values.api.maxReplicas }} {{ $name }}-api.{{ $domain }}:8000 {{ $find }}

backend llm from llm_rules
{{- range $number := until (int .Values.vllm.maxReplicas) }}
    server vllm{{ $number }} {{ $name }}-vllm-{{ $number }}.{{ $name }}-vllm.{{ $domain }}:8101 {{ $find }}
{{- end }}
{{- range $index, $model := .Values.otherModels }}
{{- $slug := include "eyepiece.slug" $model.name }}
{{- $part := printf "%s-vllm-%s" $name $slug }}

frontend language_model_{{ $slug }} from common
    bind :{{ add 8111 $index }}
    http-request return status 404 unless { path /v1/chat/completions /health }
    default_backend llm_{{ $slug }}

backend llm_{{ $slug }} from llm_rules
{{- range $number := until (int (index $.Values (printf "vllm-%s" $slug)).maxReplicas) }}
    server vllm{{ $number }} {{ $part }}-{{ $number }}.{{ $part }}.{{ $domain }}:8101 {{ $find }}
{{- end }}
{{- end }}
{{ end -}}
