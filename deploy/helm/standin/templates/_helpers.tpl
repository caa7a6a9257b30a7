{{/* Names and labels, and the sidecar for the pods of other charts. */}}

{{- define "standin.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains "standin" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-standin" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "standin.selectorLabels" -}}
app.kubernetes.io/name: standin-broker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "standin.labels" -}}
{{ include "standin.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: standin
{{- end }}

{{/* The restricted profile of the Pod Security Standards, for a container. */}}
{{- define "standin.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/*
The sidecar, for `initContainers` of a pod, and its volume, for `volumes`. The argument is the context of this chart: in a chart that
depends on it, `.Subcharts.standin`.
*/}}
{{- define "standin.sidecar" -}}
{{- $sidecar := .Values.sidecar -}}
- name: standin
  image: "{{ $sidecar.image.repository }}:{{ $sidecar.image.tag | default .Chart.AppVersion }}"
  imagePullPolicy: {{ $sidecar.image.pullPolicy }}
  # An init container that goes on: it starts before the component and stops after it.
  restartPolicy: Always
  args:
    {{- if $sidecar.nodes }}
    {{- toYaml $sidecar.nodes | nindent 4 }}
    {{- else if .Values.zookeeper }}
    - --zookeeper={{ .Values.zookeeper }}
    {{- else }}
    - --dns={{ include "standin.fullname" . }}-headless:4222
    {{- end }}
    # On all addresses of the pod, so that the kubelet and Prometheus reach the pages. Components use localhost:4222.
    - --http=0.0.0.0:8222
    {{- with $sidecar.args }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    - name: STANDIN_LIMITS_BUFFERS_TOTAL_BYTES_MAX
      value: {{ mul $sidecar.buffersMiB 1048576 | quote }}
    {{- with $sidecar.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - { name: sidecar-pages, containerPort: 8222 }
  # The component starts when the sidecar listens. It may start while no node is up, and is served when one comes.
  startupProbe:
    httpGet: { path: /healthz, port: sidecar-pages }
    periodSeconds: 1
    failureThreshold: 30
  # Not a check for nodes: without them a restart helps nobody, and would lose what the sidecar holds for the component.
  livenessProbe:
    httpGet: { path: /healthz, port: sidecar-pages }
    failureThreshold: 6
  resources:
    requests:
      {{- toYaml $sidecar.requests | nindent 6 }}
    limits: { memory: {{ add $sidecar.buffersMiB 64 }}Mi }
  securityContext:
    runAsUser: 10001
    runAsGroup: 10001
    {{- include "standin.securityContext" . | nindent 4 }}
  volumeMounts:
    # The last known nodes. They survive a restart of the container, but not of the pod.
    - { name: standin-cache, mountPath: /var/lib/standin }
    {{- with $sidecar.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "standin.sidecarVolumes" -}}
- { name: standin-cache, emptyDir: { sizeLimit: 1Mi } }
{{- end }}
