# Risiti. Each command sets up what it needs; `make help` lists them.

CARGO ?= cargo
SECONDS ?= 60
HOURS ?= 0.25
TERMINALS ?= 300
KAFKA ?= embedded
KAFKA_DIR ?= target/kafka
KAFKA_PORT ?= 19092
GATEWAY ?= 127.0.0.1:1883
ID ?= t1
KILLS ?= 500

.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: setup
setup: ## Installs what building and testing need (Debian, Ubuntu)
	@tests/setup.sh build test

.PHONY: build
build: ## Builds the gateway, optimised: target/release/risiti
	@tests/setup.sh build
	$(CARGO) build --release -p risiti-gateway

.PHONY: demo
demo: build ## The whole way with a power cut in the middle; SECONDS=20 TERMINALS=300 KAFKA=real
	@tests/demo.sh "$(KAFKA)" --seconds "$(SECONDS)" --terminals "$(TERMINALS)"

.PHONY: test
test: ## Every test, against a real Kafka too
	@tests/setup.sh build test firmware
	@tests/run.sh

.PHONY: lint
lint: ## Formatting, clippy and documentation, warnings denied
	@tests/setup.sh build
	$(CARGO) fmt --all -- --check
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml -- --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet
	@tests/setup.sh firmware
	firmware/lint.sh

.PHONY: deny
deny: ## Licences, bans and sources of every dependency (cargo-deny)
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	cargo-deny check bans licenses sources

.PHONY: sbom
sbom: ## What is in the gateway and in the images, crate by crate (CycloneDX): target/sbom
	@tests/setup.sh build
	@command -v cargo-cyclonedx >/dev/null || $(CARGO) install cargo-cyclonedx --locked
	@tests/sbom.sh

.PHONY: kafka
kafka: ## Runs a real Apache Kafka in the foreground; KAFKA_PORT=19092 KAFKA_DIR=target/kafka
	@tests/setup.sh kafka
	@tests/kafka/kafka.sh start "$(KAFKA_DIR)" "$(KAFKA_PORT)"

.PHONY: bench
bench: ## PUBACK/s against mosquitto and a bare fdatasync loop; latency of the whole chain
	@tests/setup.sh build test
	$(CARGO) build --release -p risiti-gateway -p risiti-tests --bins
	target/release/bench $(BENCH)
	target/release/bench_chain $(CHAIN)

.PHONY: bench-chain
bench-chain: ## Only the chain: payment, Kafka, settlement, receipt; CHAIN="--rate 1000"
	@tests/setup.sh build test
	$(CARGO) build --release -p risiti-gateway -p risiti-tests --bins
	target/release/bench_chain $(CHAIN)

.PHONY: bench-attack
bench-attack: ## What honest terminals wait while others attack; ATTACK="--seconds 10"
	@tests/setup.sh build test
	$(CARGO) build --release --locked -p risiti-gateway -p risiti-tests --bin risiti --bin bench_attack
	target/release/bench_attack $(ATTACK)

.PHONY: soak
soak: KAFKA = real
soak: ## The whole house for hours: flat or not, with a picture; HOURS=8, KAFKA=embedded
	@tests/setup.sh build test
	$(CARGO) build --release --locked -p risiti-gateway -p risiti-tests --bin risiti --bin soak
	target/release/soak --hours "$(HOURS)" --kafka "$(KAFKA)" $(SOAK)

.PHONY: airtime
airtime: ## What a payment costs on the air: bytes, segments, radio seconds, joules
	@tests/setup.sh build
	@$(CARGO) run --quiet -p risiti-sim --example airtime

.PHONY: firmware
firmware: ## Builds the images for terminals; BOARD=mps2-an386 or nrf52840-dk, default both
	@tests/setup.sh firmware
	@firmware/build.sh --strict $(BOARD)

.PHONY: flash
flash: ## Flashes a terminal; TERMINAL=t17.terminal SETTINGS="--apn internet --title School"
	@tests/setup.sh build firmware
	@firmware/flash.sh "$(or $(BOARD),nrf52840-dk)" $(TERMINAL) $(GATEWAY) $(SETTINGS)

.PHONY: wipe
wipe: ## Erases all that a terminal keeps; TERMINAL=t17, EVEN_UNFINISHED=yes, BOARD=mps2-an386
	@tests/setup.sh build firmware
	@firmware/wipe.sh "$(or $(BOARD),nrf52840-dk)" "$(basename $(notdir $(TERMINAL)))" $(if $(EVEN_UNFINISHED),--even-unfinished)

.PHONY: terminal
terminal: ## A terminal in QEMU, here; TERMINAL=t1.terminal, or ID=t1 GATEWAY=127.0.0.1:1883
	@tests/setup.sh build firmware
	@$(CARGO) build --quiet --locked -p risiti-sim --bin terminal
	@target/debug/terminal run --image $$(firmware/build.sh mps2-an386) \
		$(if $(TERMINAL),--dir "target/terminal-$(basename $(notdir $(TERMINAL)))" --package "$(TERMINAL)", \
			--dir "target/terminal-$(ID)" --id "$(ID)" --gateway "$(GATEWAY)") $(SETTINGS) \
		$(if $(NETWORK),--network $(NETWORK))

.PHONY: crash
crash: ## Cuts the power of the image in QEMU 500 times; KILLS=500
	@tests/setup.sh build test firmware
	RISITI_KILLS=$(KILLS) $(CARGO) test --locked -p risiti-tests --test terminal_qemu -- --nocapture

.PHONY: mutants
mutants: ## Puts small faults into the cores; the tests must notice; CORES="wire mqtt"
	@tests/setup.sh build
	@tests/mutants.sh $(CORES)

.PHONY: proof
proof: ## Every machine that tries to lose something, for hours; PROOF="--hours 1 --only crash"
	@tests/setup.sh build test firmware
	@$(CARGO) run --quiet --locked -p risiti-proof -- $(PROOF)

.PHONY: conformance
conformance: ## Plays every MQTT wire case and writes tests/conformance/REPORT.md
	@tests/setup.sh build test
	$(CARGO) test --locked -p risiti-mqtt --test wire_cases
	RISITI_REPORT=write $(CARGO) test --locked -p risiti-tests --test conformance -- --nocapture

.PHONY: fuzz
fuzz: ## Fuzzes every parser, 600 s each; TIME=seconds TARGET=wire; a table at the end
	@tests/setup.sh build
	@RISITI_FUZZ_SECONDS=$(or $(TIME),600) tests/fuzz.sh run $(TARGET)

.PHONY: size
size: ## What the images take: flash, RAM and stack, as a table
	@tests/setup.sh build firmware
	@$(CARGO) run --quiet --locked -p risiti-sim --bin terminal -- size $$(firmware/build.sh)

.PHONY: clean
clean: ## Removes everything that was built or fetched
	$(CARGO) clean
	rm -rf tests/kafka/target
