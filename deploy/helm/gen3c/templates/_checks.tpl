{{/* What a schema cannot say: values that are legal alone and cannot work together. */}}
{{- define "gen3c.checks" -}}
{{- $v := .Values -}}
{{- if and (eq $v.target "cpu") $v.gpus -}}
{{- fail (printf "gpus is %v and target is cpu, which uses none; legal: gpus 0, or target cuda or tensorrt." $v.gpus) -}}
{{- end -}}
{{- if and (ne $v.target "cpu") (not $v.gpus) -}}
{{- fail (printf "gpus is 0 and target is %s, which needs at least 1." $v.target) -}}
{{- end -}}
{{- if and (eq $v.preset "gen3c-7b") (not $v.checkpoints.enabled) -}}
{{- fail "preset is gen3c-7b, which has no weights of its own; set checkpoints.enabled." -}}
{{- end -}}
{{- $download := $v.checkpoints.download -}}
{{- if and $v.checkpoints.enabled $download.enabled -}}
{{- if not $download.licencesAccepted -}}
{{- fail (printf "checkpoints.download.licencesAccepted is false; read the licences of %s and %s where they are published, accept them there, and set it to true." $download.transformer.repository $download.tokenizer.repository) -}}
{{- end -}}
{{- if ne $v.preset "gen3c-7b" -}}
{{- fail (printf "checkpoints.download is for preset gen3c-7b; preset is %s." $v.preset) -}}
{{- end -}}
{{- end -}}
{{- if $v.build.job.enabled -}}
{{- if not $v.build.claim.existing -}}
{{- fail "build.job.enabled needs build.claim.existing: the job runs before this release's own claims are there." -}}
{{- end -}}
{{- if and $v.checkpoints.enabled (not $v.checkpoints.claim.existing) -}}
{{- fail "build.job.enabled needs checkpoints.claim.existing: the job runs before this release's own claims are there." -}}
{{- end -}}
{{- end -}}
{{- $most := ternary $v.autoscaling.maxReplicas $v.replicas $v.autoscaling.enabled | add $v.rollout.spare -}}
{{- if gt (int $most) 1 -}}
{{- range $name, $claim := dict "build" $v.build.claim "checkpoints" $v.checkpoints.claim -}}
{{- if and (not $claim.existing) (or (eq $name "build") $v.checkpoints.enabled) -}}
{{- if has "ReadWriteOncePod" $claim.accessModes -}}
{{- fail (printf "%s.claim.accessModes is ReadWriteOncePod, and there may be %d pods; name ReadWriteMany." $name (int $most)) -}}
{{- end -}}
{{- if and $v.rollout.spare (not (has "ReadWriteMany" $claim.accessModes)) -}}
{{- fail (printf "rollout.spare is %v, and a new pod on another node cannot mount %s.claim while the old one has it; name ReadWriteMany, or spare 0." $v.rollout.spare $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) -}}
{{- fail (printf "autoscaling.maxReplicas is %v, below minReplicas %v." $v.autoscaling.maxReplicas $v.autoscaling.minReplicas) -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (eq $v.autoscaling.kind "keda") (not $v.autoscaling.prometheus) -}}
{{- fail "autoscaling.kind is keda, which asks Prometheus; set autoscaling.prometheus to its URL." -}}
{{- end -}}
{{- if and $v.tls.clientCa (not $v.tls.secret) -}}
{{- fail "tls.clientCa is true without tls.secret, which has the ca.crt." -}}
{{- end -}}
{{- end }}
