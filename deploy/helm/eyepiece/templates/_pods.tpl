{{- /* What every pod has in common. Nobody here talks to Kubernetes. */ -}}
{{- define "eyepiece.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "eyepiece.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Where the pods of one part may run: (list $ "worker"). */ -}}
{{- define "eyepiece.placement" -}}
{{- $part := index (index . 0).Values (index . 1) -}}
{{- with $part.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "eyepiece.selector" . | nindent 8 }}
{{- end -}}

{{- define "eyepiece.pull" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Resources of one part, with its GPUs. */ -}}
{{- define "eyepiece.resources" -}}
resources:
  {{- with .resources.requests }}
  requests: {{- toYaml . | nindent 4 }}
  {{- end }}
  limits:
    {{- with .resources.limits }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if .gpus }}
    {{ .gpuResource }}: {{ .gpus }}
    {{- end }}
{{- end -}}

{{- /* The demo model is put where the others look, by a container that ends: (list $ "api"). */ -}}
{{- define "eyepiece.installModel" -}}
{{- $root := index . 0 -}}
{{- if not $root.Values.models.existingClaim }}
{{- if or (ne $root.Values.model "demo") $root.Values.otherModels }}
{{- fail "models.existingClaim is needed for any other model than demo: a volume with the installed model" }}
{{- end }}
initContainers:
  - name: install-model
    image: {{ include "eyepiece.image" . }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: [models, install, demo]
    {{- include "eyepiece.containerSecurity" $root | nindent 4 }}
    resources:
      requests: {cpu: 100m, memory: 128Mi}
      limits: {memory: 512Mi}
    volumeMounts:
      - {name: models, mountPath: /var/lib/eyepiece/models}
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end -}}

{{- define "eyepiece.modelsVolume" -}}
- name: models
  {{- if .Values.models.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.models.existingClaim }}, readOnly: true}
  {{- else }}
  emptyDir: {sizeLimit: 256Mi}
  {{- end }}
{{- end -}}

{{- /* Volumes of API and workers. */ -}}
{{- define "eyepiece.stateVolumes" -}}
{{ include "eyepiece.modelsVolume" . }}
- {name: tmp, emptyDir: {sizeLimit: 2Gi}}
- {name: scratch, emptyDir: {}}
- {name: compiled, emptyDir: {sizeLimit: 10Gi}}
{{- if not .Values.store.url }}
- name: store
  persistentVolumeClaim: {claimName: {{ include "eyepiece.storeClaim" . }}}
{{- end }}
{{- end -}}

{{- define "eyepiece.stateMounts" -}}
- {name: models, mountPath: /var/lib/eyepiece/models, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: scratch, mountPath: /var/lib/eyepiece/scratch}
- {name: compiled, mountPath: /var/lib/eyepiece/compiled}
{{- if not .Values.store.url }}
- {name: store, mountPath: /var/lib/eyepiece/store}
{{- end }}
{{- end -}}

{{- /* Variables of API and workers. A later one may name an earlier one. */ -}}
{{- define "eyepiece.environment" -}}
- {name: EYEPIECE_MODEL, value: {{ .Values.model | quote }}}
{{- if .Values.otherModels }}
- {name: EYEPIECE_MODELS, value: {{ include "eyepiece.models" . | quote }}}
{{- end }}
{{- with .Values.store.url }}
- {name: EYEPIECE_STORE_URL, value: {{ . | quote }}}
{{- end }}
{{- if .Values.redis.enabled }}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "eyepiece.secret" . }}, key: redis-password}}
- name: EYEPIECE_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "eyepiece.name" . }}-redis:6379/0
{{- else }}
- name: EYEPIECE_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ include "eyepiece.secret" . }}, key: redis-url}}
{{- end }}
- name: EYEPIECE_LLM_URL
  value: http://{{ include "eyepiece.name" . }}-haproxy:8101
- name: EYEPIECE_LLM_API_KEY
  valueFrom: {secretKeyRef: {name: {{ include "eyepiece.secret" . }}, key: llm-api-key}}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "eyepiece.storeCredentials" -}}
{{- with .Values.store.secretEnvironment }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{- /* At most one pod of a part at a time may be taken away for maintenance: (list $ "api"). */ -}}
{{- define "eyepiece.disruptionBudget" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.podDisruptionBudgets.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "eyepiece.name" $root }}-{{ index . 1 }}
  labels: {{- include "eyepiece.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "eyepiece.selector" . | nindent 6 }}
{{- end }}
{{- end -}}
