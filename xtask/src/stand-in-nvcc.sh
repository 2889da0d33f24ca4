#!/bin/sh
# Stands in for nvcc where only types are checked: writes empty files where kernels should be.
for word in "$@"; do
    case $word in
    --version)
        echo 'nvcc: NVIDIA (R) Cuda compiler driver'
        echo 'A stand-in that compiles nothing'
        echo 'of Demitasse'
        echo 'Cuda compilation tools, release 13.0, V13.0.88'
        exit
        ;;
    --list-gpu-code)
        echo sm_80
        exit
        ;;
    esac
done
while [ $# -gt 0 ]; do
    case $1 in
    -o) : >"$2" ;;
    --output-directory) folder=$2 ;;
    *.cu) source=$1 ;;
    esac
    shift
done
if [ -n "${folder:-}" ] && [ -n "${source:-}" ]; then
    : >"$folder/$(basename "$source" .cu).ptx"
fi
