#!/bin/bash
# Bunny's name for sqa.sh.
exec bash "$(dirname "$0")/sqa.sh" "$@"
