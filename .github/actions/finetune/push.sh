#!/usr/bin/env bash
# Publishes the run in the folder RUN as PUSH_TO: by HF_OIDC_RESOURCE or with HF_TOKEN, one of which is empty.
set -euo pipefail
# The Hub's client would prefer the first to the second without a word.
if [ -n "$HF_OIDC_RESOURCE" ]; then unset HF_TOKEN HUGGING_FACE_HUB_TOKEN; else unset HF_OIDC_RESOURCE; fi
case " $OPTIONS " in
  *" --merged "*) [ -d "$RUN/merged" ] || "$RUNNER_TEMP/hf_finetune/bin/hf-finetune" merge "$RUN" ;;
esac
read -r -d '' -a words <<< "$OPTIONS" || true
"$RUNNER_TEMP/hf_finetune/bin/hf-finetune" push "$RUN" "$PUSH_TO" ${words[@]+"${words[@]}"}
