package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	gguf "github.com/gpustack/gguf-parser-go"
)

// shard is one of the files of a model: the only one, or one of those that gguf-split makes
// (NAME-00001-of-00003.gguf), the first of which has the metadata and each some tensors.
type shard struct {
	path  string
	stamp fileStamp
	m     *mapping
}

// shardPaths are those of the model at path.
func shardPaths(path string) []string {
	if paths := gguf.CompleteShardGGUFFilename(path); paths != nil {
		return paths
	}
	return []string{path}
}

// ModelStamp tells the files of the model at path from others in their place; "" where one
// cannot be seen.
func ModelStamp(path string) string {
	out := ""
	for _, path := range shardPaths(path) {
		stamp, err := targetStamp(path)
		if err != nil {
			return ""
		}
		out += fmt.Sprintln(stamp)
	}
	return out
}

// openShards maps all files of the model at path.
func openShards(path string) (shards []shard, err error) {
	for _, path := range shardPaths(path) {
		s := shard{path: path}
		s.stamp, err = targetStamp(path) // before it is read: a change in between is seen later
		if err == nil {
			s.m, err = mapFile(path)
		}
		if err != nil {
			return nil, errors.Join(err, closeShards(shards))
		}
		shards = append(shards, s)
	}
	return shards, nil
}

func closeShards(shards []shard) (err error) {
	for _, s := range shards {
		err = errors.Join(err, s.m.close())
	}
	return err
}

// replaced tells whether another file is at the shard's path now, or other content. One that
// is gone was not replaced, or not yet.
func (s *shard) replaced() bool {
	now, err := targetStamp(s.path)
	return err == nil && now != s.stamp
}

// tensors is how many the file's own header counts.
func (s *shard) tensors() int {
	return int(binary.LittleEndian.Uint64(s.m.data[8:]))
}

// tensor finds a tensor. data are its file's bytes from where it begins, nil where that is
// beyond the end.
func (m *Model) tensor(file *gguf.GGUFFile, name string) (t gguf.GGUFTensorInfo, data []byte, ok bool) {
	at := slices.IndexFunc(file.TensorInfos, func(t gguf.GGUFTensorInfo) bool { return t.Name == name })
	if at < 0 {
		return t, nil, false
	}
	t = file.TensorInfos[at]
	i := 0
	for ; i < len(m.shards)-1 && at >= m.shards[i].tensors(); i++ {
		at -= m.shards[i].tensors()
	}
	data = m.shards[i].m.data
	off := file.SplitTensorDataStartOffsets[i] + int64(t.Offset)
	if off < 0 || off > int64(len(data)) {
		return t, nil, true
	}
	return t, data[off:], true
}

// hash is what Model.Hash says; of several files that of theirs.
func (m *Model) hash(file *gguf.GGUFFile) string {
	h := xxhash.New()
	var one string
	for i, s := range m.shards {
		one = modelHash(s.m.data, file.SplitTensorDataStartOffsets[i])
		fmt.Fprintln(h, one)
	}
	if len(m.shards) == 1 {
		return one
	}
	return fmt.Sprintf("%016x", h.Sum64())
}
