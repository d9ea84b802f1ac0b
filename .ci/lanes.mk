# What .ci/run plays side by side, once everything is built: `make -j2 -f .ci/lanes.mk`.
#
# By make and not by the shell: what a shell starts in the background has SIGINT ignored.

.PHONY: both suite worlds
both: suite worlds

suite:
	make test

worlds:
	make proof
	make fuzz SECONDS=10
	make faults
	make soak ARGS='--spawns 50000'
