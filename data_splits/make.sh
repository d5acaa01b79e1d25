#!/usr/bin/env bash
# Makes every file of this folder again, byte for byte: run it here.
set -euo pipefail
cd "$(dirname "$0")"

mkdir -p brats2018 brats2020 brats2023 myops2020
printf 'BraTS20_Training_%03d\n' $(seq 1 369) > brats2020/cases.txt
printf 'myops_training_%03d\n' $(seq 101 125) > myops2020/cases.txt

for ending in csv json; do
    for combination in 2468 1379; do
        for fold in 1 2 3; do
            medmap split --cases 285 --edition brats2018 --train 199 --val 29 --test 57 --seed $fold \
                --combination $combination --output brats2018/mr${combination}_fold$fold.$ending
        done
        medmap split --cases 1251 --edition brats2023 --train 875 --val 125 --test 251 --seed 1 \
            --combination $combination --output brats2023/mr$combination.$ending
    done
    for combination in 2468 1379 2258 2285 5528 5582 8825 8852; do
        medmap split --cases brats2020/cases.txt --train 219 --val 50 --test 100 --seed 1 \
            --combination $combination --output brats2020/mr$combination.$ending
    done
    for combination in 357 375 537 573 735 753; do
        medmap split --cases myops2020/cases.txt --edition myops2020 --train 20 --test 5 --seed 1 \
            --combination $combination --output myops2020/mr$combination.$ending
    done
done
