"""What is known of public datasets: layout, labels, quirks, access, and how to fetch them."""
