// Demo shows what the sidecar does: it starts a real llama-server with a small
// real model and the sidecar in front of it, sends real prompts that resemble
// one another, and some that do not, and compares the time to the first token
// and the answers with those of the backend alone. It fails when something that
// must hold does not.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// pairsFile holds the texts; see the README beside it for their licences.
const pairsFile = "eval/pairs/small.jsonl"

func main() {
	bin := flag.String("bin", "bin/semsharekv", "the program to show")
	model := flag.String("model", "", "GGUF `FILE`; default: SmolLM2-135M-Instruct")
	way := flag.String("way", "slot", "slot: a stock server; agent: with libsemshare-agent.so in it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *model, *way); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, model, way string) error {
	pairs, err := readPairs(pairsFile)
	if err != nil {
		return err
	}
	scenes, err := scenes(pairs)
	if err != nil {
		return err
	}
	preload, inside, err := agent(way, bin)
	if err != nil {
		return err
	}
	fmt.Println("starting llama-server (unmodified, from xllamacpp) with SmolLM2-135M-Instruct" + inside)
	backend, err := lab.Start(ctx, lab.BackendOptions{Model: model, Context: 3 * 6144, Slots: 3, Preload: preload, Progress: os.Stdout})
	if err != nil {
		return err
	}
	defer backend.Close()
	fmt.Println("starting the sidecar with its embedded index")
	dir, err := os.MkdirTemp("", "semsharekv-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := startSidecar(ctx, bin, backend, filepath.Join(dir, "sidecar"))
	if err != nil {
		return err
	}
	defer s.kill()

	fmt.Printf("sending %d prompts to the sidecar and to the backend alone; on two cores this takes some five minutes\n\n", prompts(scenes))
	began := time.Now()
	var results []result
	for i := range scenes {
		fmt.Printf("[%d/%d] %s\n", i+1, len(scenes), scenes[i].title)
		r, err := scenes[i].play(ctx, s.url, backend.URL)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", scenes[i].title, err, s.tail())
		}
		results = append(results, r)
	}
	printTable(os.Stdout, results)
	printAnswers(os.Stdout, results)
	if err := s.stop(); err != nil {
		return err
	}
	failures := 0
	for _, r := range results {
		for _, f := range r.failures {
			failures++
			fmt.Printf("DOES NOT HOLD  %s: %s\n", r.scene.title, f)
		}
	}
	if failures > 0 {
		return fmt.Errorf("%d of the things that must hold do not", failures)
	}
	fmt.Printf("all that must hold does; %s\n", time.Since(began).Round(time.Second))
	return nil
}

// agent returns the library for the server to load, and how to say so.
func agent(way, bin string) (preload, inside string, err error) {
	switch way {
	case "slot":
		return "", "", nil
	case "agent":
		preload, err = filepath.Abs(filepath.Join(filepath.Dir(bin), "libsemshare-agent.so"))
		if err == nil {
			_, err = os.Stat(preload)
		}
		return preload, ", the agent inside", err
	}
	return "", "", fmt.Errorf("-way %q: expected slot or agent", way)
}
