#!/bin/sh
# The checks that only a GPU can make, one after another: run.sh [folder for results]. Each leaves a log; summary.json has what
# ran, how it ended and how long it took. Exit code 0 if all passed.
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/results}
mkdir -p "$out" && out=$(cd "$out" && pwd) && cd "$here" || exit 2
failed=0
rows=
REQUIRE=cuda
export REQUIRE

check() { # name, command...
  name=$1
  shift
  begin=$(date +%s)
  "$@" >"$out/$name.log" 2>&1
  code=$?
  seconds=$(($(date +%s) - begin))
  # A filter that names no test passes.
  case "$*" in *./conformance*)
    [ $code != 0 ] || grep -q 'test result: ok. 1 passed' "$out/$name.log" || code=1 ;;
  esac
  if [ $code = 0 ]; then
    verdict=passed
  else
    verdict=FAILED
    failed=$((failed + 1))
  fi
  printf '%-20s %s in %s s\n' "$name" "$verdict" "$seconds"
  [ $code = 0 ] || grep -E 'REQUIRE names|[Ee]rror|panicked|FAILED' "$out/$name.log" | head -n 5 | sed 's/^/    /'
  rows="$rows${rows:+, }{\"name\": \"$name\", \"exit\": $code, \"seconds\": $seconds}"
}

nvidia-smi >"$out/nvidia-smi.log" 2>&1 || echo "nvidia-smi is not there; clocks are not recorded"
check doctor ./tsn-affinity doctor --json "$out/doctor.json"
# Cold, then from the driver's cache.
check load_cold env CUDA_CACHE_DISABLE=1 JSON="$out/load_cold.json" ./conformance --exact gpu::every_module_loads --nocapture
check load_prime ./conformance --exact gpu::every_module_loads --nocapture
check load_cached env JSON="$out/load_cached.json" ./conformance --exact gpu::every_module_loads --nocapture
if [ $failed = 0 ]; then
  check bits ./conformance --exact gpu::a_gpu_gives_the_bits_of_the_emulator
  check training ./conformance --exact gpu::a_gpu_trains_with_the_bits_of_one_launch_for_each_call
  check absent ./conformance --exact gpu::absent_gpus_are_errors_with_advice
  check conformance ./conformance --exact every_op_on_every_device --nocapture
  check anchors ./tsn-affinity profile --device cuda --suite anchors --json "$out/anchors.json"
  check train ./tsn-affinity train --suite cartpole7 --budget smoke --steps 50 --episodes 2 --no-reference --device cuda \
    --out "$out/train"
fi
nvidia-smi -q -d CLOCK,TEMPERATURE >>"$out/nvidia-smi.log" 2>&1
printf '{"schema": 1, "failed": %s, "checks": [%s]}\n' "$failed" "$rows" >"$out/summary.json"
[ $failed = 0 ] && echo "all passed; results in $out" || echo "$failed failed; results in $out"
[ $failed = 0 ]
