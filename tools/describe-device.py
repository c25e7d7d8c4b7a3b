#!/usr/bin/env python3
"""Prints the description file of a built-in device, as the back-end conventions of vhost-user have it, on which those
of vfio-user are based. Usage: describe-device.py OUTBOARD DEVICE BINARY"""
import json
import subprocess
import sys

outboard, device, binary = sys.argv[1:]
output = subprocess.run([outboard, "serve", device, "--print-capabilities"], check=True, stdout=subprocess.PIPE).stdout
capabilities = json.loads(output)
described = {"description": capabilities["summary"], "type": capabilities["type"], "binary": binary}
print(json.dumps(described, indent=2))
