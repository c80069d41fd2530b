/* The spline of _spline_steps.py, its gradient and its inverse, each in one pass over the values.

   In torch's operations they are dozens of passes. The module is optional: where no C compiler is
   at hand the package is installed without it, and takes those. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_BINS 32
#define TILE 64 /* values: what these need of 8 bins stays in the cache of level 1 */
#define VERSION 1 /* of what _spline_fused.py passes: a build of another one would misread it */

#if defined(__FAST_MATH__) || (defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 2)
#error "Rounding to whole numbers, and nan, need arithmetic as it is written."
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#define restrict __restrict
#endif

/* Made for three generations of processors. The one at hand takes the best, when loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* Into the clones, or it would have the instructions of the oldest. */
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

typedef struct {
    int n_bins;
    double bound, least, shared, unit_slope, min_derivative;
} Spline;

#define NAME(name) name##_float
#define REAL float
#define BITS uint32_t
#define SIGNED int32_t
#define MANTISSA 23            /* bits */
#define BITS_OF_ONE 0x3f800000
#define BITS_OF_ROOT 0x3f3504f3 /* of 1/2 */
#define SHIFT 12582912.0f      /* 1.5 times two to the number of those bits */
#define SQUARE_ROOT sqrtf
#define TINY FLT_MIN
#define LEAST_EXPONENT -87
#define LOG_2_HIGH 0.693359375f /* times any power it is exact */
#define LOG_2_LOW -2.12194440e-4f
#define EXP_TERMS 7
#define ATANH_TERMS 7
#include "_spline_kernel.h"

#define NAME(name) name##_double
#define REAL double
#define BITS uint64_t
#define SIGNED int64_t
#define MANTISSA 52
#define BITS_OF_ONE 0x3ff0000000000000
#define BITS_OF_ROOT 0x3fe6a09e667f3bcd
#define SHIFT 6755399441055744.0
#define SQUARE_ROOT sqrt
#define TINY DBL_MIN
#define LEAST_EXPONENT -708
#define LOG_2_HIGH 6.93147180369123816490e-1
#define LOG_2_LOW 1.90821492927058770002e-10
#define EXP_TERMS 12
#define ATANH_TERMS 16
#include "_spline_kernel.h"

typedef void Pass(const Spline *, ptrdiff_t n_blocks, ptrdiff_t n, void *const *tensors);

/* Calls a pass with (spline, is_double, n_blocks, n, *addresses of tensors). A block has n values in
   each tensor, or n of each parameter. */
static PyObject *call(PyObject *args, int n_tensors, Pass *of_floats, Pass *of_doubles)
{
    Spline s;
    int is_double;
    Py_ssize_t n_blocks, n;
    unsigned long long at[6] = {0};
    void *tensors[6];
    if (!PyArg_ParseTuple(args, "(iddddd)pnnKKKK|KK", &s.n_bins, &s.bound, &s.least, &s.shared,
                          &s.unit_slope, &s.min_derivative, &is_double, &n_blocks, &n, &at[0],
                          &at[1], &at[2], &at[3], &at[4], &at[5]))
        return NULL;
    if (PyTuple_Size(args) != 4 + n_tensors || s.n_bins < 1 || s.n_bins > MAX_BINS) {
        PyErr_SetString(PyExc_ValueError, "Wrong number of tensors or of bins.");
        return NULL;
    }
    for (int i = 0; i < n_tensors; i++)
        tensors[i] = (void *)(uintptr_t)at[i];
    Py_BEGIN_ALLOW_THREADS;
    (is_double ? of_doubles : of_floats)(&s, n_blocks, n, tensors);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyObject *forward(PyObject *self, PyObject *args)
{
    return call(args, 4, forward_float, forward_double);
}

static PyObject *inverse(PyObject *self, PyObject *args)
{
    return call(args, 4, inverse_float, inverse_double);
}

static PyObject *backward(PyObject *self, PyObject *args)
{
    return call(args, 6, backward_float, backward_double);
}

static PyMethodDef methods[] = {
    {"forward", forward, METH_VARARGS, "x, params -> z, log_slope"},
    {"inverse", inverse, METH_VARARGS, "z, params -> x, log_slope"},
    {"backward", backward, METH_VARARGS, "x, params, grad_z, grad_log_slope -> grad_x, grad_params"},
    {NULL, NULL, 0, NULL}};

static int fill(PyObject *module)
{
    return PyModule_AddIntMacro(module, MAX_BINS) || PyModule_AddIntMacro(module, TILE) ||
           PyModule_AddIntMacro(module, VERSION);
}

/* It has no state: no interpreter and no thread needs a lock for it. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT,
                                    .m_name = "_spline_kernel",
                                    .m_methods = methods,
                                    .m_slots = slots};

PyMODINIT_FUNC PyInit__spline_kernel(void) { return PyModuleDef_Init(&module); }
