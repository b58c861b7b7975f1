# nginx's upgrade of its binary: the new master beside the old one, then the old workers'
# end, then the old master's.
set -e
cd "$(dirname "$0")"
old=$(cat nginx.pid)
kill -USR2 "$old"
for _ in $(seq 500); do
  new=$(cat nginx.pid 2>/dev/null || true)
  if [ -n "$new" ] && [ "$new" != "$old" ] && pgrep -P "$new" >/dev/null; then break; fi
  sleep 0.01
done
kill -WINCH "$old"
for _ in $(seq 500); do
  # Its children are the old workers and the new master.
  if [ "$(pgrep -P "$old" | grep -cvx "$new")" = 0 ]; then break; fi
  sleep 0.01
done
kill -QUIT "$old"
