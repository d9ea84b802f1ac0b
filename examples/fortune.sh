#!/bin/sh
# A stand-in for fortune(6), which is in Debian's package fortune-mod.
set -- \
    "A process is born by a fork and known by its exec." \
    "Zombies are children whom nobody asked how it went." \
    "He who holds the write end decides when the story ends." \
    "A pipe is a promise of sixty-five thousand bytes."
shift $(($$ % 4))
echo "$1"
