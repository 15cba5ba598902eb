{{- define "penstock.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 46 characters leave room for the longest suffix. */}}
{{- define "penstock.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- $name := include "penstock.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: {{ include "penstock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "penstock.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "penstock.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "penstock.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "penstock.lease" -}}
{{- include "penstock.fullname" . }}-leader
{{- end }}

{{- define "penstock.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- /* The ports under which clients see the proxy: as told, else the Service's, else the node's. Empty: the ports it listens on. */}}
{{- define "penstock.publicPort" -}}
{{- $protocol := .protocol }}
{{- with .root.Values }}
{{- $told := index .publicPorts $protocol }}
{{- if $told }}{{ int $told }}
{{- else if .service.enabled }}{{ int (index .service.ports $protocol) }}
{{- else if .hostPorts.enabled }}{{ int (index .hostPorts $protocol) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Secrets that by-name mode may read, as a YAML map from namespace to names: those of the values, and the default certificate. */}}
{{- define "penstock.secretNames" -}}
{{- $all := deepCopy .Values.secrets.names }}
{{- with .Values.defaultSslCertificate }}
{{- $parts := splitList "/" . }}
{{- $namespace := index $parts 0 }}
{{- $_ := set $all $namespace (append (default list (get $all $namespace)) (index $parts 1) | uniq) }}
{{- end }}
{{- toYaml $all }}
{{- end }}
