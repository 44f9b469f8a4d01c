{{/* At most 46 characters: Kubernetes adds 17 to a pod's, and cuts what is over 63. */}}
{{- define "gen3c.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 46 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "gen3c.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gen3c.labels" -}}
{{ include "gen3c.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gen3c.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "gen3c.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{/* An image by the name of its program: include "gen3c.image" (list $ "server") */}}
{{- define "gen3c.image" -}}
{{- $root := index . 0 }}{{- $image := $root.Values.image -}}
{{- if $image.registry }}{{ trimSuffix "/" $image.registry }}/{{ end -}}
{{ index $image (index . 1) }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{- define "gen3c.buildClaim" -}}
{{ .Values.build.claim.existing | default (printf "%s-build" (include "gen3c.fullname" .)) }}
{{- end }}

{{- define "gen3c.checkpointsClaim" -}}
{{ .Values.checkpoints.claim.existing | default (printf "%s-checkpoints" (include "gen3c.fullname" .)) }}
{{- end }}

{{- define "gen3c.checkpointsFolder" -}}
/checkpoints/{{ .Values.checkpoints.folder }}
{{- end }}

{{/* The build's folder, by what it is made from: releases that differ there do not share one. */}}
{{- define "gen3c.buildName" -}}
{{- $build := pick .Values.build "fp8" "native" "kinds" -}}
{{- $from := list .Chart.AppVersion .Values.image.registry .Values.image.tag .Values.image.export .Values.deployment $build (pick .Values.checkpoints "enabled" "folder") -}}
{{ .Values.preset }}-{{ .Values.target }}-{{ $from | toJson | sha256sum | trunc 10 }}
{{- end }}

{{- define "gen3c.config" -}}
deployment.yaml: |
  {{- .Values.deployment | toYaml | nindent 2 }}
checkpoints.sh: |
  {{- .Files.Get "files/checkpoints.sh" | nindent 2 }}
{{- end }}

{{- define "gen3c.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "gen3c.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "gen3c.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpus -}}
{{- $limits := merge (dict "nvidia.com/gpu" .Values.gpus) ($resources.limits | default dict) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}

{{/* Where a pod runs. */}}
{{- define "gen3c.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "gen3c.checkpointsEnv" -}}
{{- if .Values.checkpoints.enabled }}
- name: GEN3C_CHECKPOINTS
  value: {{ include "gen3c.checkpointsFolder" . }}
{{- end }}
{{- end }}

{{/* A process sees all cores of its node, and would take a thread for each. */}}
{{- define "gen3c.threadsEnv" -}}
- name: GEN3C_THREADS
  valueFrom:
    resourceFieldRef: {containerName: {{ . }}, resource: limits.cpu}
{{- end }}

{{/* What has to be done before a server can start, in this order; each is done once. */}}
{{- define "gen3c.preparation" -}}
{{- if and .Values.checkpoints.enabled .Values.checkpoints.download.enabled }}
{{- $download := .Values.checkpoints.download }}
- name: checkpoints
  image: {{ include "gen3c.image" (list . "export") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sh, /etc/gen3c/checkpoints.sh]
  env:
    - {name: PRESET, value: {{ .Values.preset }}}
    - {name: PUBLISHED, value: /checkpoints/.published}
    - {name: HF_HUB_DISABLE_UPDATE_CHECK, value: "1"}
    - {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
    {{- include "gen3c.checkpointsEnv" . | nindent 4 }}
    {{- range $name := list "transformer" "tokenizer" "vggt" }}
    {{- with index $download $name }}
    - {name: {{ upper $name }}, value: {{ .repository | quote }}}
    - {name: {{ upper $name }}_REVISION, value: {{ .revision | quote }}}
    {{- end }}
    {{- end }}
    {{- with $download.endpoint }}
    - {name: HF_ENDPOINT, value: {{ . | quote }}}
    {{- end }}
    {{- with $download.tokenSecret }}
    - name: HF_TOKEN
      valueFrom: {secretKeyRef: {name: {{ . }}, key: token}}
    {{- end }}
  securityContext: {{- include "gen3c.containerSecurity" . | nindent 4 }}
  resources: {{- toYaml .Values.resources | nindent 4 }}
  volumeMounts:
    - {name: config, mountPath: /etc/gen3c, readOnly: true}
    - {name: checkpoints, mountPath: /checkpoints}
    - {name: tmp, mountPath: /tmp}
{{- end }}
- name: build
  image: {{ include "gen3c.image" (list . "export") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - build
    - --out=/build
    - --name={{ include "gen3c.buildName" . }}
    - --preset={{ .Values.preset }}
    - --target={{ .Values.target }}
    - --deployment=/etc/gen3c/deployment.yaml
    {{- if .Values.build.fp8 }}
    - --fp8
    {{- end }}
    {{- if .Values.build.native }}
    - --native
    {{- end }}
    {{- range .Values.build.kinds }}
    - --kind={{ . }}
    {{- end }}
  env:
    {{- include "gen3c.threadsEnv" "build" | nindent 4 }}
    {{- include "gen3c.checkpointsEnv" . | nindent 4 }}
  securityContext: {{- include "gen3c.containerSecurity" . | nindent 4 }}
  resources: {{- include "gen3c.resources" . | nindent 4 }}
  volumeMounts:
    - {name: config, mountPath: /etc/gen3c, readOnly: true}
    - {name: build, mountPath: /build}
    {{- if .Values.checkpoints.enabled }}
    - {name: checkpoints, mountPath: /checkpoints, readOnly: true}
    {{- end }}
    - {name: shm, mountPath: /dev/shm}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Volumes of the pods that prepare or serve: include "gen3c.volumes" (list $ CONFIGMAP) */}}
{{- define "gen3c.volumes" -}}
{{- $root := index . 0 -}}
- name: config
  configMap: {name: {{ index . 1 }}}
- name: build
  persistentVolumeClaim: {claimName: {{ include "gen3c.buildClaim" $root }}}
{{- if $root.Values.checkpoints.enabled }}
- name: checkpoints
  persistentVolumeClaim: {claimName: {{ include "gen3c.checkpointsClaim" $root }}}
{{- end }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ $root.Values.shm }}}
- name: tmp
  emptyDir: {sizeLimit: {{ $root.Values.tmp }}}
{{- end }}
