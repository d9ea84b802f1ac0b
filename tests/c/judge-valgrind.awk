# What valgrind's exit code does not tell, read from its log:
#   awk -f judge-valgrind.awk PASSED LOG      PASSED: the pids of the cases that passed, one a line
# In no process, children before exec included, a bad access; in the process of a case that has passed no lost
# memory, and no fd that is still open, but for those that it was born with.  Exit code 1 if there is one.
# (A copy that a case forks has the memory of threads that it has not, and ends without freeing any.)
FILENAME == ARGV[1] { passed[$1]; next }
match($0, /^==[0-9]+==/) { pid = substr($0, 3, RLENGTH - 4) }
/Invalid (read|write|free)|uninitialised|Mismatched free|overlap/ || (/definitely lost/ && pid in passed) {
    print
    bad = 1
}
/Open (file descriptor|AF_)/ { told[pid] = $0; next }
pid in told {
    if (pid in passed && !/<inherited from parent>/) {
        print told[pid] "\n" $0
        bad = 1
    }
    delete told[pid]
}
END { exit bad }
