{{- /* The operator's config.yaml. It refuses keys that it does not know, so a key here is a key there. */ -}}
{{- define "securelink.config" -}}
{{- range .Values.certManager.issuers }}
{{- if and (eq .kind "Issuer") (not .namespace) }}
{{- fail (printf "certManager.issuers names the Issuer %s without its namespace; add namespace, which is also that of the identities" .name) }}
{{- end }}
{{- end -}}
certManager: {{ toJson .Values.certManager }}
clusterCIDRs: {{ toJson .Values.clusterCIDRs }}
clusterDomain: {{ .Values.clusterDomain | quote }}
deniedCIDRs: {{ toJson .Values.deniedCIDRs }}
dns:
{{ toYaml .Values.dns }}
image: {{ include "securelink.image" . | quote }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
ipv6: {{ .Values.ipv6 }}
logFormat: {{ .Values.operator.logFormat }}
monitoring: {{ toJson .Values.monitoring }}
operatorLabels:
  {{- include "securelink.selector" . | nindent 2 }}
records: {{ .Values.relay.records }}
resources:
  {{- toYaml .Values.relay.resources | nindent 2 }}
{{- end -}}
