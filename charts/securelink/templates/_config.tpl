{{- /* The operator's config.yaml. It refuses keys that it does not know, so a key here is a key there. */ -}}
{{- define "securelink.config" -}}
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
resources:
  {{- toYaml .Values.relay.resources | nindent 2 }}
{{- end -}}
