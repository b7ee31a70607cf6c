# Sourced by the scripts beside it: the root of the repository and how to speak to the user.
# shellcheck shell=bash disable=SC2034
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Exit code 2: this machine lacks something, and the message says what.
refuse() {
  say "$*"
  exit 2
}

# pip and Ray keep files below HOME; with none set they would write to /.
if [[ -z ${HOME:-} || ! -d $HOME || ! -w $HOME ]]; then
  export HOME=$ROOT/.cache/home
  mkdir -p -- "$HOME"
fi
