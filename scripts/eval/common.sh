# Sourced by the evaluation scripts, with their arguments: CHECKPOINT [flags of the program that answers].
# NAME: name of the answers (default: the checkpoint's folder). RESULT: where the score goes (default: beside the answers).
# CONV: conversation template (default: what the checkpoint records). QUESTIONS, IMAGES: other questions, other images.
# GPUS: processes that share the questions (default: one for each visible GPU).
# MISSING: what the scorer does about unanswered questions: error (default), wrong or skip.
# NO_SCORE=1: answer only, where there are no annotations to score against (a test split).
# DATA: the benchmark's folder (default: under playground/data/eval). PYTHON: the interpreter. DRY_RUN=1 prints the commands.
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
PYTHON=${PYTHON:-python}
CHECKPOINT=${1:?usage: bash $0 CHECKPOINT [flags]}
FLAGS=("${@:2}")
NAME=${NAME:-$(basename "$CHECKPOINT")}

run() {
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

# answer MODULE ANSWERS [flags]: has the checkpoint answer, on every GPU; ANSWERS is there, whole, when this returns.
answer() {
    run "$PYTHON" -m llava.eval.answering.launch ${GPUS:+--gpus "$GPUS"} "llava.eval.$1" \
        --model-path "$CHECKPOINT" \
        --answers-file "$2" \
        --temperature 0 \
        ${CONV:+--conv-mode "$CONV"} \
        "${@:3}" \
        ${FLAGS[@]+"${FLAGS[@]}"}
}

# scorer MODULE ANSWERS [flags]: what `score` will run. Its flags, annotations and questions are checked before any answer.
scorer() {
    SCORER=(
        "$PYTHON" -m "llava.eval.$1"
        --result-file "$2"
        --report-file "${RESULT:-${2%.jsonl}.score.json}"
        ${MISSING:+--missing "$MISSING"}
        "${@:3}"
    )
    [ -n "${NO_SCORE:-}" ] || run "${SCORER[@]}" --check
}

# score: scores the answers.
score() {
    [ -n "${NO_SCORE:-}" ] || run "${SCORER[@]}"
}
