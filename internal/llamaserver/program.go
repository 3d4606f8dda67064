package llamaserver

import "path"

// Program is how many words run the server where it begins with the first of them, 0 if
// another program does: llama-server, or llama.cpp's one program for all, llama serve.
func Program(words []string) int {
	switch {
	case len(words) > 0 && path.Base(words[0]) == "llama-server":
		return 1
	case len(words) > 1 && path.Base(words[0]) == "llama" && words[1] == "serve":
		return 2
	}
	return 0
}
