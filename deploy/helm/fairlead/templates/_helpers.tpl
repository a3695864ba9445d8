{{- define "fairlead.name" -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{- define "fairlead.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
app.kubernetes.io/name: fairlead
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{- define "fairlead.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "fairlead.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "fairlead.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "fairlead.databaseVariable" -}}
- name: FAIRLEAD_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.secretName | quote }}
      key: {{ .Values.database.key | quote }}
{{- end -}}

{{- define "fairlead.variables" -}}
{{ include "fairlead.databaseVariable" . }}
- name: FAIRLEAD_SIGNING_KEY_FILE
  value: /etc/fairlead/signing/{{ .Values.signingKey.key }}
{{- if .Values.keyFile.secretName }}
- name: FAIRLEAD_KEY_FILE
  value: /etc/fairlead/keys/{{ .Values.keyFile.key }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- define "fairlead.mounts" -}}
- name: home
  mountPath: /var/lib/fairlead
- name: tmp
  mountPath: /tmp
- name: signing
  mountPath: /etc/fairlead/signing
  readOnly: true
{{- if .Values.keyFile.secretName }}
- name: keys
  mountPath: /etc/fairlead/keys
  readOnly: true
{{- end }}
{{- end -}}

{{- define "fairlead.volumes" -}}
- name: tmp
  emptyDir: {}
- name: signing
  secret:
    secretName: {{ .Values.signingKey.secretName | quote }}
    defaultMode: 0440
{{- if .Values.keyFile.secretName }}
- name: keys
  secret:
    secretName: {{ .Values.keyFile.secretName | quote }}
    defaultMode: 0440
{{- end }}
{{- end -}}
