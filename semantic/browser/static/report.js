const slider = document.getElementById("when");
if (slider) {
  const shots = JSON.parse(document.getElementById("shots").textContent);
  const show = () => {
    const shot = shots[slider.value];
    document.getElementById("kimg").textContent = shot.text;
    for (const kind of ["fakes", "masks"]) {
      const image = document.getElementById(kind);
      if (image && shot[kind]) image.src = shot[kind];
    }
  };
  slider.addEventListener("input", show);
  show();
}
