/* A library: SIGINT at the n-th bytecode that a thread runs, as a signal handler of C would note it.
 *
 * What is noted is raised by the interpreter, as KeyboardInterrupt, at the next place where it looks
 * for signals, and nowhere else.  Python's threading is spared: its locks do not survive that.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static long wanted, seen, struck;

static int is_threading(PyFrameObject *frame)
{
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *file = PyUnicode_FromString("threading.py");
    int matches = PyUnicode_Tailmatch(code->co_filename, file, 0, PY_SSIZE_T_MAX, 1) == 1;
    Py_DECREF(file);
    Py_DECREF(code);
    return matches;
}

/* From 3.13 on a frame tells its bytecodes only if it has some f_trace as well, which nobody calls. */
static int follow(PyFrameObject *frame, PyObject *whether)
{
    int failed = whether == Py_True && PyObject_SetAttrString((PyObject *)frame, "f_trace", whether);
    return failed ? -1 : PyObject_SetAttrString((PyObject *)frame, "f_trace_opcodes", whether);
}

static int on_event(PyObject *unused, PyFrameObject *frame, int what, PyObject *arg)
{
    (void)unused;
    (void)arg;
    if (struck)
        return 0;
    if (what == PyTrace_CALL && !is_threading(frame))
        return follow(frame, Py_True);
    if (what == PyTrace_OPCODE && ++seen == wanted)
        PyErr_SetInterrupt();
    else if (what == PyTrace_EXCEPTION && seen >= wanted)
        struck = seen;
    return 0;
}

/* From now on: interrupt this thread at its `nth` bytecode in functions that are called from here. */
void interrupter_start(long nth)
{
    wanted = nth;
    seen = struck = 0;
    PyFrameObject *frame = PyEval_GetFrame();
    PyObject_SetAttrString((PyObject *)frame, "f_trace_opcodes", Py_True); /* 3.12: asked for here */
    PyEval_SetTrace(on_event, NULL);
    PyObject_SetAttrString((PyObject *)frame, "f_trace_opcodes", Py_False);
}

/* Stop counting.  Which bytecode the interrupt came before; 0: it did not come while we counted. */
long interrupter_stop(void)
{
    PyEval_SetTrace(NULL, NULL);
    return struck;
}
