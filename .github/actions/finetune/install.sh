#!/usr/bin/env bash
# Installs hf_finetune into an environment of its own: VERSION from PyPI, else what this action comes with.
set -euo pipefail
root="$(cd "$GITHUB_ACTION_PATH/../../.." && pwd)"
extras="${EXTRAS:+[$EXTRAS]}"
python -m venv "$RUNNER_TEMP/hf_finetune"
if [ -n "$VERSION" ]; then
  "$RUNNER_TEMP/hf_finetune/bin/pip" install -q "hf_finetune$extras==$VERSION"
else
  "$RUNNER_TEMP/hf_finetune/bin/pip" install -q -c "$root/.ci/constraints.txt" "$root$extras"
fi
"$RUNNER_TEMP/hf_finetune/bin/hf-finetune" --version
