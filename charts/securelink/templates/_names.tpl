{{- /* The name of everything in the operator's namespace. Fixed, as the Lease is: the kinds are the cluster's, so is the operator. */ -}}
{{- define "securelink.name" -}}securelink-operator{{- end -}}

{{- /* By these the Deployment, its policy and the relays' policies know the operator's pods. Never to be changed. */ -}}
{{- define "securelink.selector" -}}
app.kubernetes.io/name: securelink
app.kubernetes.io/component: operator
{{- end -}}

{{- define "securelink.labels" -}}
{{ include "securelink.selector" . }}
{{ include "securelink.shared" . }}
{{- end -}}

{{- /* Of what is no part of the operator. */ -}}
{{- define "securelink.shared" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: securelink
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "securelink.image" -}}
{{- $image := .Values.image -}}
{{- $tagged := printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- if $image.digest }}{{ printf "%s@%s" $tagged $image.digest }}{{ else }}{{ $tagged }}{{ end -}}
{{- end -}}
