#!/usr/bin/env bash
# Run all tests, in three groups at the same time: tests/run_all.sh [PYTHON]
#
# Two groups compute, and take about as long as each other on one core each. The third mostly waits for timeouts, nodes
# and servers, so it runs beside them. The output of one group appears at once, that of the others at the end.
# The exit code is 1 if a test failed in any group.
set -u
cd "$(dirname "$0")/.."

python=${1:-.venv/bin/python}
logs=$(mktemp -d)
echo "the other groups write to $logs until the end"
pytest=("$python" -m pytest --durations 25)

waiting=(tests/e2e/test_{endpoint_life,elastic,tracking,real_parts,s3,search,hidden_packages}.py)
computing=(tests/unit tests/local_ray tests/e2e/test_resume.py)
others=()
for file in tests/e2e/test_*.py; do
  [[ " ${waiting[*]} ${computing[*]} " == *" $file "* ]] || others+=("$file")
done

"${pytest[@]}" "${waiting[@]}" >"$logs/waiting.log" 2>&1 &
waiting_pid=$!
"${pytest[@]}" "${computing[@]}" >"$logs/computing.log" 2>&1 &
computing_pid=$!

failed=0
"${pytest[@]}" "${others[@]}" || failed=1
wait "$waiting_pid" || failed=1
wait "$computing_pid" || failed=1
cat "$logs/waiting.log" "$logs/computing.log"
exit "$failed"
