#!/usr/bin/env bash
# Runs RECIPE with SETTINGS in the folder OUTPUT; a gate that is missed ends it with exit code 3.
set -euo pipefail
if [ -z "$RECIPE" ]; then
  echo "::error::No recipe: give the input recipe, or run with the folder of a finished run."
  exit 1
fi
read -r -d '' -a words <<< "$SETTINGS" || true  # read ends with 1 at the end of what it is given
"$RUNNER_TEMP/hf_finetune/bin/hf-finetune" run "$RECIPE" ${words[@]+"${words[@]}"} "output_dir=$OUTPUT"
