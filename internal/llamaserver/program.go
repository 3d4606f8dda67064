package llamaserver

import "path"

// Program is the number of words that run the server, if words begin with it, else 0: one is
// llama-server, two are llama serve or llama server, of llama.cpp's one program for all.
func Program(words []string) int {
	switch {
	case len(words) > 0 && path.Base(words[0]) == "llama-server":
		return 1
	case len(words) > 1 && path.Base(words[0]) == "llama" && (words[1] == "serve" || words[1] == "server"):
		return 2
	}
	return 0
}
