#!/bin/bash
# Perplexity of WikiText-2's validation text: bash scripts/eval/perplexity.sh CHECKPOINT [flags of llava.eval.perplexity]
source "$(dirname "$0")/benchmark.sh" perplexity "$@"
