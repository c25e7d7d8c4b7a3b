# A thin front: meson builds, scripts/ do the rest.

.PHONY: build check demo format clean

build: build/build.ninja
	ninja -C build

build/build.ninja:
	scripts/install-deps
	meson setup build

# Everything: set-up, format, builds with both compilers and the sanitizers, and all their tests.
check:
	scripts/install-deps
	scripts/check

# A Linux guest that uses Outboard's devices.
demo: build
	scripts/demo

format:
	scripts/format

clean:
	rm -rf build build-gcc build-asan build-tsan
