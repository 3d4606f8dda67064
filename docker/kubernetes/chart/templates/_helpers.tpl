{{- define "name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "selector" -}}
app.kubernetes.io/name: semsharekv-inject
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: semsharekv
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "host" -}}
{{ include "name" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* The Secret's name differs by source: neither must find what the other left. */}}
{{- define "secret" -}}
{{ include "name" . }}-{{ if eq .Values.certificates.source "self" }}certificate{{ else }}tls{{ end }}
{{- end -}}
