#!/bin/bash
# Perplexity of WikiText-2's validation text: bash scripts/eval/perplexity.sh CHECKPOINT [flags of llava.eval.perplexity]
# QUESTIONS: another text of the folder, without .txt (wikitext-2-test). MAX_TOKENS: the first so many tokens only.
# CONTEXT, STRIDE: tokens of a window and from window to window (default: 2048, or what fits; no overlap).
# Further settings by environment variables are in common.sh.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/perplexity}
QUESTIONS=${QUESTIONS:-wikitext-2-valid}

run "$PYTHON" -m llava.eval.perplexity \
    --model-path "$CHECKPOINT" \
    --text-file "$DATA/$QUESTIONS.txt" \
    --batch-size 1 \
    --report-file "${RESULT:-$DATA/answers/$QUESTIONS${MAX_TOKENS:+.first-$MAX_TOKENS}/$NAME.score.json}" \
    ${MAX_TOKENS:+--max-tokens "$MAX_TOKENS"} \
    ${CONTEXT:+--context "$CONTEXT"} \
    ${STRIDE:+--stride "$STRIDE"} \
    ${FLAGS[@]+"${FLAGS[@]}"}
