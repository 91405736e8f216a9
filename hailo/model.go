package hailo

// Manifest describes a CLIP model: its numbers and its files. It is the manifest.json of a
// model folder; the known ones are in configs/models.
type Manifest struct {
	Name               string     `json:"name"`
	Description        string     `json:"description,omitempty"`
	License            string     `json:"license,omitempty"`
	EmbeddingDimension int        `json:"embedding_dimension"`
	ImageSize          int        `json:"image_size"`     // pixels on a side
	ContextLength      int        `json:"context_length"` // tokens, start and end included
	LogitScale         float64    `json:"logit_scale"`    // exp of CLIP's learned temperature
	Mean               [3]float32 `json:"mean"`           // RGB, of pixels scaled to 0..1
	Std                [3]float32 `json:"std"`
	Tokens             Tokens     `json:"tokens"`

	Tokenizer string    `json:"tokenizer,omitempty"` // file name; default tokenizer.json
	CPU       *CPUFiles `json:"cpu,omitempty"`       // nil: the model has no CPU encoder
	NPU       *NPUFiles `json:"npu,omitempty"`       // nil: the model has no NPU encoder

	Files map[string]File `json:"files"` // by file name
}

// Tokens names the special tokens of the tokenizer.
type Tokens struct {
	Start string `json:"start"`
	End   string `json:"end"`
	PadID int32  `json:"pad_id"` // id that fills the text after the end token
}

// CPUFiles names the ONNX encoders, in the layout of Hugging Face exports: pixel_values ->
// image_embeds, input_ids -> text_embeds. Both names may be the same file (a whole CLIP model).
type CPUFiles struct {
	Image string `json:"image"`
	Text  string `json:"text"`
}

// NPUFiles names the Hailo-10H encoders and what text needs on the host.
type NPUFiles struct {
	Image          string `json:"image"`                     // .hef
	Text           string `json:"text,omitempty"`            // .hef; "": text is encoded on the CPU
	TokenEmbedding string `json:"token_embedding,omitempty"` // .npy float32 [vocabulary, width]
	TextProjection string `json:"text_projection,omitempty"` // .npy float32 [width, dimension] or its transpose
	// ProjectionTransposed says that TextProjection is [dimension, width] (a Hugging Face
	// weight), not [width, dimension] (OpenAI's x @ text_projection).
	ProjectionTransposed bool `json:"projection_transposed,omitempty"`
}

// File is where a model file comes from and what it must be.
type File struct {
	URL    string `json:"url,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // hex; "": recorded at the first pull and held to afterwards
}

// Model is an installed model: a manifest and where its files are. Immutable.
type Model struct {
	Manifest
	paths map[string]string // file name -> path
}
