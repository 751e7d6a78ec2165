"""The folder order and the size limits hold."""
import os
import subprocess
import sys

sys.exit(subprocess.run([sys.executable, os.path.join(os.environ["SKF_ROOT"], "tools", "check_order.py"), "--tap"]).returncode)
