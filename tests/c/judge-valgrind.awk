# What valgrind's exit code does not tell, read from its log:
#   awk -v passed=COUNT -f judge-valgrind.awk LOG     COUNT: of the cases that passed
# In no process, children before exec included, a bad access; in the process of a case that has passed no lost
# memory, and no fd that is still open, but for those that it was born with.  Such a process is known by fd 901,
# and not by its pid, which may be another's by now.  Exit code 1 if there is one.
# (A copy that a case forks has the memory of threads that it has not, and ends without freeing any.)
match($0, /^==[0-9]+==/) { pid = substr($0, 3, RLENGTH - 4) }
/FILE DESCRIPTORS:/ { delete marked[pid]; delete told[pid]; next } # what is told of a process begins with this
/Open (file descriptor|AF_.* socket) 901:/ { marked[pid]; marks++; delete told[pid]; next }
/Invalid (read|write|free)|uninitialised|Mismatched free|overlap/ || (/definitely lost/ && pid in marked) {
    print
    bad = 1
}
/Open (file descriptor|AF_)/ { told[pid] = $0; next }
pid in told {
    if (pid in marked && !/<inherited from parent>/) {
        print told[pid] "\n" $0
        bad = 1
    }
    delete told[pid]
}
END {
    if (passed && !marks) {
        print "no process tells that it was a case which passed"
        bad = 1
    }
    exit bad
}
